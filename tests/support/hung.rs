//! A file system that does not answer, or takes its time.

use super::support::Place;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// A file system (fuse(4)) that answers nothing; its end lets go of everybody.
pub struct Hung {
    pub at: String,
    pub device: File,
    _place: Place,
}

impl Hung {
    /// None: this kernel has no fuse, which no package brings; or we are not root.
    pub fn new() -> Option<Hung> {
        let place = Place::new();
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").ok()?;
        let at = place.at("hung");
        std::fs::create_dir(&at).expect("directory");
        let options =
            format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        mount(Some("hung"), &*at, Some("fuse"), MsFlags::empty(), Some(&*options)).ok()?;
        Some(Hung { at, device, _place: place })
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        // Its end may have unmounted it, where nobody used it any more.
        let _ = umount2(&*self.at, MntFlags::MNT_DETACH);
    }
}

/// Answers what mounts it, and every other question after this time, with success; None: never.
/// It takes what it is asked: whoever asks then cannot be killed any more. Returned: how many
/// questions there were.
pub fn answers_after(device: &File, time: Option<Duration>) -> Arc<AtomicUsize> {
    const INIT: u32 = 26;
    const INTERRUPT: u32 = 36;
    const HEAD: usize = 16;
    const INIT_ANSWER: usize = 80;
    let mut device = device.try_clone().expect("descriptor");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        let mut asked = vec![0; 1 << 17];
        while let Ok(40..) = device.read(&mut asked) {
            let is_init = asked[4..8] == INIT.to_ne_bytes();
            let mut answer = vec![0u8; if is_init { INIT_ANSWER } else { HEAD }];
            let length = answer.len() as u32;
            answer[..4].copy_from_slice(&length.to_ne_bytes());
            answer[8..HEAD].copy_from_slice(&asked[8..HEAD]);
            if is_init {
                // Version 7.31 (fuse(4)).
                answer[HEAD..HEAD + 8].copy_from_slice(&[7, 0, 0, 0, 31, 0, 0, 0]);
                device.write_all(&answer).expect("answer");
                continue;
            }
            let is_question = asked[4..8] != INTERRUPT.to_ne_bytes();
            counted.fetch_add(usize::from(is_question), Relaxed);
            if let Some(time) = time {
                let mut device = device.try_clone().expect("descriptor");
                std::thread::spawn(move || {
                    std::thread::sleep(time);
                    // Whoever asked may be gone.
                    let _ = device.write_all(&answer);
                });
            }
        }
    });
    count
}

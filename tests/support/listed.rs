//! A directory whose lock somebody keeps: by a call that lists it, for which whoever may read it has
//! the right, with memory that nobody provides (userfaultfd(2); another user has FUSE for that).

use super::support::{Place, installed, root, skip};
use std::io::Read;
use std::process::{Child, Command, Stdio};

/// Lists a directory into memory that nobody provides, until it is ended.
const LISTS: &str = r#"
    #define _GNU_SOURCE
    #include <fcntl.h>
    #include <linux/userfaultfd.h>
    #include <poll.h>
    #include <pthread.h>
    #include <sys/ioctl.h>
    #include <sys/mman.h>
    #include <sys/prctl.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    static char *nothing;
    static int directory;

    static void *list(void *none) {
        syscall(SYS_getdents64, directory, nothing, 4096);
        return 0;
    }

    int main(int n, char **words) {
        struct uffdio_api api = { .api = UFFD_API };
        struct uffdio_register page = { .mode = UFFDIO_REGISTER_MODE_MISSING };
        int faults = syscall(SYS_userfaultfd, O_NONBLOCK);
        struct pollfd fault = { faults, POLLIN };
        pthread_t thread;
        prctl(PR_SET_PDEATHSIG, 9);
        alarm(90);
        nothing = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        page.range.start = (unsigned long)nothing;
        page.range.len = 4096;
        if (ioctl(faults, UFFDIO_API, &api) || ioctl(faults, UFFDIO_REGISTER, &page)) return 1;
        directory = open(words[1], O_RDONLY | O_DIRECTORY);
        pthread_create(&thread, 0, list, 0);
        poll(&fault, 1, -1);
        write(1, "x", 1);
        while (1) pause();
    }"#;

/// As long as this lives nobody makes or removes a file there.
pub struct Listed(Child);

impl Listed {
    /// Can it be tried here?
    pub fn can_be() -> bool {
        let can = root() && installed("cc");
        if !can {
            skip("needs root, and a C compiler");
        }
        can
    }

    /// The program is made in this place.
    pub fn new(place: &Place, directory: &str) -> Listed {
        let (source, program) = (place.write("lists.c", LISTS, 0o644), place.at("lists"));
        let cc = ["-static", "-O2", "-w", "-pthread", "-o", &program, &source];
        assert!(Command::new("cc").args(cc).status().expect("cc").success());
        let mut lists = Command::new(program);
        let mut lists = lists.arg(directory).stdout(Stdio::piped()).spawn().expect("lists");
        let told = lists.stdout.as_mut().expect("a pipe").read_exact(&mut [0]);
        assert!(told.is_ok(), "{told:?}");
        Listed(lists)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        assert!(ended.is_ok(), "{ended:?}");
    }
}

//! Bytes that are received straight into a buffer of frames, with space for each frame's header.

use crate::sys::count;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// How many pieces [`receive_pieces`] takes at once.
pub const PIECES: usize = 8;

/// Takes the bytes that have come, at most [`PIECES`] pieces and at most `most` bytes, and appends
/// them to the buffer: `gap` zeros, for a header, and a piece, again and again; the last piece may
/// be shorter. Returns how many bytes it took; 0: the other end has finished. `WouldBlock`: nothing
/// yet.
pub fn receive_pieces(
    fd: BorrowedFd,
    buffer: &mut Vec<u8>,
    gap: usize,
    piece: usize,
    most: usize,
) -> io::Result<usize> {
    take_pieces(buffer, gap, piece, most, |parts, n| {
        // SAFETY: all zeros is a message without an address, parts and rights.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = parts;
        message.msg_iovlen = n as _;
        // SAFETY: take_pieces says that each part is writable for its whole length.
        count(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) })
    })
}

/// As [`receive_pieces`], of whatever read(2) reads; it waits where that does.
pub fn read_pieces(
    fd: BorrowedFd,
    buffer: &mut Vec<u8>,
    gap: usize,
    piece: usize,
    most: usize,
) -> io::Result<usize> {
    take_pieces(buffer, gap, piece, most, |parts, n| {
        // SAFETY: take_pieces says that each part is writable for its whole length.
        count(unsafe { libc::readv(fd.as_raw_fd(), parts, n as _) })
    })
}

/// Has `read` fill parts of the buffer's own memory, each writable for its whole length: it says
/// how many bytes it has filled, in their order.
fn take_pieces(
    buffer: &mut Vec<u8>,
    gap: usize,
    piece: usize,
    most: usize,
    read: impl FnOnce(*mut libc::iovec, usize) -> io::Result<usize>,
) -> io::Result<usize> {
    let pieces = most.div_ceil(piece).min(PIECES);
    let most = most.min(pieces * piece);
    buffer.reserve_exact(pieces * (gap + piece));
    let spare = buffer.spare_capacity_mut();
    let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; PIECES];
    for (k, (part, chunk)) in
        parts.iter_mut().zip(spare.chunks_exact_mut(gap + piece)).take(pieces).enumerate()
    {
        let chunk = &mut chunk[gap..];
        *part = libc::iovec {
            iov_base: chunk.as_mut_ptr().cast(),
            iov_len: piece.min(most - k * piece),
        };
    }
    let n = read(parts.as_mut_ptr(), pieces)?;
    let got = n.div_ceil(piece);
    spare
        .chunks_mut(gap + piece)
        .take(got)
        .flat_map(|c| &mut c[..gap])
        .for_each(|b| _ = b.write(0));
    // SAFETY: the kernel has filled the pieces in their order, and the gaps in front of them were
    // filled here.
    unsafe { buffer.set_len(buffer.len() + got * gap + n) };
    Ok(n)
}

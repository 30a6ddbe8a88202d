//! What is too long for a message: bytes in memory behind a descriptor, which needs no file anywhere.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{FromRawFd, OwnedFd};

/// More is no state of ours.
const LARGEST: u64 = 256 * 1024 * 1024;

pub fn pack(bytes: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string; the descriptor that is returned is new.
    let mut file = unsafe {
        match libc::memfd_create(c"switchback".as_ptr(), libc::MFD_CLOEXEC) {
            ..0 => return Err(io::Error::last_os_error()),
            fd => File::from_raw_fd(fd),
        }
    };
    file.write_all(bytes)?;
    Ok(file.into())
}

pub fn unpack(fd: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(fd);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_the_same() {
        for bytes in [Vec::new(), vec![7; 300_000]] {
            assert_eq!(unpack(pack(&bytes).expect("memory")).expect("whole"), bytes);
        }
    }
}

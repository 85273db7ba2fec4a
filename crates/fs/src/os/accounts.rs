//! Names and numbers of users and groups, as this machine's directory services tell them.
//!
//! Owns nothing and remembers nothing: each question is asked anew, and may take long where a server
//! answers. An answer that cannot be had is none.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

use super::OsDir;
use crate::api::Party;

/// Where the text of an answer goes first, and what is never exceeded: groups list their members.
const TEXT: usize = 1024;
const TEXT_MAX: usize = 1024 * 1024;

/// Asks with a buffer that grows as long as the answer does not fit. `ask` fills in the record, points at it
/// when there is one, and returns an error number.
fn asked<R, T>(
    ask: impl Fn(*mut R, *mut libc::c_char, usize, *mut *mut R) -> i32,
    take: impl Fn(&R) -> T,
) -> Option<T> {
    let mut text = vec![0; TEXT];
    loop {
        let mut record = MaybeUninit::<R>::uninit();
        let mut found = std::ptr::null_mut();
        let code = ask(
            record.as_mut_ptr(),
            text.as_mut_ptr().cast(),
            text.len(),
            &raw mut found,
        );
        if code == libc::ERANGE && text.len() < TEXT_MAX {
            text.resize(text.len() * 4, 0_u8);
            continue;
        }
        if code == libc::EINTR {
            continue;
        }
        if code != 0 || found.is_null() {
            return None;
        }
        #[expect(unsafe_code, reason = "a record that the system filled in")]
        // SAFETY: the call succeeded and points at our record, whose texts are in the buffer that lives on.
        return Some(take(unsafe { &*found }));
    }
}

fn name(text: *const libc::c_char) -> Vec<u8> {
    #[expect(unsafe_code, reason = "text of a record that the system filled in")]
    // SAFETY: called only with the name of a record that was found, which ends with a zero byte.
    unsafe { CStr::from_ptr(text) }.to_bytes().to_vec()
}

#[expect(unsafe_code, reason = "rustix has no calls for accounts")]
impl OsDir {
    /// See [`crate::Dir::account_name`].
    #[allow(
        clippy::unused_self,
        reason = "each simulated machine has accounts of its own"
    )]
    pub(crate) fn account_name(&self, party: Party, id: u32) -> Option<Vec<u8>> {
        match party {
            Party::User => asked(
                // SAFETY: `asked` passes a record, a buffer with its length, and a place for a pointer.
                |r, text, len, found| unsafe { libc::getpwuid_r(id, r, text, len, found) },
                |r: &libc::passwd| name(r.pw_name),
            ),
            Party::Group => asked(
                // SAFETY: as above.
                |r, text, len, found| unsafe { libc::getgrgid_r(id, r, text, len, found) },
                |r: &libc::group| name(r.gr_name),
            ),
        }
    }

    /// See [`crate::Dir::account_id`].
    #[allow(
        clippy::unused_self,
        reason = "each simulated machine has accounts of its own"
    )]
    pub(crate) fn account_id(&self, party: Party, name: &[u8]) -> Option<u32> {
        let name = CString::new(name).ok()?;
        match party {
            Party::User => asked(
                // SAFETY: as above, and the name ends with a zero byte and outlives the call.
                |r, text, len, found| unsafe {
                    libc::getpwnam_r(name.as_ptr(), r, text, len, found)
                },
                |r: &libc::passwd| r.pw_uid,
            ),
            Party::Group => asked(
                // SAFETY: as above.
                |r, text, len, found| unsafe {
                    libc::getgrnam_r(name.as_ptr(), r, text, len, found)
                },
                |r: &libc::group| r.gr_gid,
            ),
        }
    }

    /// See [`crate::Dir::acting_user`].
    #[allow(
        clippy::unused_self,
        reason = "each simulated machine has a process of its own"
    )]
    pub(crate) fn acting_user(&self) -> u32 {
        rustix::process::geteuid().as_raw()
    }
}

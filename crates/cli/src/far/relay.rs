//! The program that was started leads its caller to a session that holds the folder already.
//!
//! Before anything else the caller says one line: the folder's path, in hexadecimal. Invariant: where a session takes
//! callers in, nothing is opened here, and bytes are handed on as they come.

use std::io::{BufRead as _, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use super::agent::{bad_request, place_of};
use crate::connect;
use crate::control::client;
use crate::error::Failure;
use crate::places;

/// More than any path needs.
const LINE_MAX: u64 = 64 * 1024;
/// Bytes that are handed on at a time.
const CHUNK: usize = 64 * 1024;

/// The folder that the caller asks for first.
pub(super) fn asked_first() -> Result<String, Failure> {
    let mut line = String::new();
    let read = std::io::stdin().lock().take(LINE_MAX).read_line(&mut line);
    match read {
        Ok(n) if n > 0 => Ok(line.trim_end().to_owned()),
        _ => Err(bad_request("no folder")),
    }
}

/// The session that holds the folder and takes callers in, if there is one. What is wrong with the folder is said when
/// it is looked at.
pub(super) fn holder(path: &str) -> Option<UnixStream> {
    let seen = connect::inspect(&place_of(path).ok()?).ok()?;
    seen.holder.as_ref()?;
    let dir = places::runtime_dir();
    let attach = |replica| client::attach(&dir, replica).ok().flatten();
    seen.memberships.iter().find_map(|m| attach(m.replica))
}

/// Hands bytes on between standard input and output and a session, until it hangs up.
pub(super) fn relay(session: UnixStream) {
    let Ok(mut to) = session.try_clone() else {
        return;
    };
    // It ends with the process at the latest.
    drop(
        std::thread::Builder::new()
            .name("relay".into())
            .spawn(move || {
                hand_on(&mut std::io::stdin(), &mut to);
                let _gone = to.shutdown(Shutdown::Write);
            }),
    );
    hand_on(&mut { session }, &mut std::io::stdout());
}

fn hand_on(from: &mut impl Read, to: &mut impl Write) {
    let mut bytes = vec![0; CHUNK];
    loop {
        let n = match from.read(&mut bytes) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return,
            Ok(n) => n,
        };
        if to.write_all(&bytes[..n]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

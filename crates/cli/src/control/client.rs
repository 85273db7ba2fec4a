//! The asking end: finds the session that holds a replica.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use instep_core::id::ReplicaId;
use instep_engine::command::{Answer, Command};

use super::{Place, is_ours, protocol};
use crate::error::{Exit, Failure};

/// More than a session answers to whoever brings a caller.
const ANSWER_MAX: usize = 4096;

/// A connection to a session.
#[derive(Debug)]
pub(crate) struct Client {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
}

/// The session that holds a replica; nothing when there is none.
pub(crate) fn connect(dir: &Path, replica: ReplicaId) -> Result<Option<Client>, Failure> {
    let Some(place) = Place::open(dir)? else {
        return Ok(None);
    };
    let Ok(writer) = UnixStream::connect(place.socket(replica)) else {
        return Ok(None);
    };
    if !is_ours(&writer) {
        return Ok(None);
    }
    let reader = writer.try_clone().map_err(|e| lost(&e.to_string()))?;
    Ok(Some(Client {
        writer,
        reader: BufReader::new(reader),
    }))
}

/// A socket to the session that holds a replica, which carries a link from now on; nothing when there is none, or when
/// it takes nobody in.
pub(crate) fn attach(dir: &Path, replica: ReplicaId) -> Result<Option<UnixStream>, Failure> {
    let Some(mut client) = connect(dir, replica)? else {
        return Ok(None);
    };
    let failed = |e: std::io::Error| lost(&e.to_string());
    let asked = client.writer.write_all(protocol::ATTACH.as_bytes());
    asked.map_err(failed)?;
    let mut line = String::new();
    // Byte by byte: what follows the line belongs to the link.
    while !line.ends_with('\n') && line.len() < ANSWER_MAX {
        let mut byte = [0];
        if client.writer.read(&mut byte).map_err(failed)? == 0 {
            return Ok(None);
        }
        line.push(char::from(byte[0]));
    }
    let taken = matches!(protocol::answer(&line), Ok(Answer::Done(_)));
    Ok(taken.then_some(client.writer))
}

impl Client {
    /// Asks, and waits for the answer.
    pub(crate) fn ask(&mut self, command: &Command) -> Result<Answer, Failure> {
        let failed = |e: std::io::Error| lost(&e.to_string());
        self.writer
            .write_all(protocol::command_line(command).as_bytes())
            .map_err(failed)?;
        let mut line = String::new();
        if self.reader.read_line(&mut line).map_err(failed)? == 0 {
            return Err(lost("it ended before it answered"));
        }
        protocol::answer(&line).map_err(|why| lost(&why))
    }
}

fn lost(why: &str) -> Failure {
    Failure::new(1024, Exit::Failed, "ask the running session")
        .why(why)
        .effect("it is not known whether the request was carried out")
        .remedy("run the command again")
}

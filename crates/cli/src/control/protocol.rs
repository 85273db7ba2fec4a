//! Requests and answers as lines of JSON.
//!
//! Paths travel as hex of their exact bytes. Unknown fields are disregarded; an unknown request is refused.

use crate::ui::put::Put as _;
use instep_core::path::RelPath;
use instep_core::plan::{Code, Problem};
use instep_engine::command::{Answer, Command, Keep, ReplicaStatus, Status};
use instep_engine::report::{State, Summary};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Request {
    Status,
    Why {
        path: String,
    },
    Resolve {
        id: Option<String>,
        keep: String,
    },
    Approve {
        id: String,
    },
    Reject {
        id: String,
    },
    Restore {
        replica: usize,
        key: String,
        to: Option<String>,
    },
    EmptyTrash {
        before_ns: i64,
    },
    Check {
        replica: usize,
        paths: Vec<String>,
    },
    Accept {
        replica: usize,
        path: String,
    },
    Repair {
        replica: usize,
        path: String,
    },
    Rescan,
    Stop,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
enum Reply {
    Done { count: u64 },
    Status(Box<StatusBody>),
    Why { lines: Vec<String> },
    Refused { code: u16, why: String },
}

#[derive(Serialize, Deserialize)]
struct StatusBody {
    state: String,
    replicas: Vec<ReplicaBody>,
    problems: Vec<ProblemBody>,
    counts: [u64; 11],
}

#[derive(Serialize, Deserialize)]
struct ReplicaBody {
    label: String,
    location: String,
    state: String,
    why: String,
    notes: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct ProblemBody {
    replica: usize,
    path: String,
    code: u16,
    detail: String,
}

/// Bytes as hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        out.put(format_args!("{b:02x}"));
    }
    out
}

/// Bytes from hex.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

/// A path from the hex of its bytes.
pub(crate) fn path(text: &str) -> Result<RelPath, String> {
    let bytes = unhex(text).ok_or("a path is not hexadecimal")?;
    RelPath::new(&bytes).map_err(|e| e.to_string())
}

fn line(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}

/// A request as a line.
pub(crate) fn command_line(command: &Command) -> String {
    line(&match command {
        Command::Status => Request::Status,
        Command::Why(path) => Request::Why {
            path: hex(path.as_bytes()),
        },
        Command::Resolve { id, keep } => Request::Resolve {
            id: id.clone(),
            keep: keep.word().to_owned(),
        },
        Command::Approve(id) => Request::Approve { id: id.clone() },
        Command::Reject(id) => Request::Reject { id: id.clone() },
        Command::Restore { replica, key, to } => Request::Restore {
            replica: *replica,
            key: key.clone(),
            to: to.as_ref().map(|p| hex(p.as_bytes())),
        },
        Command::EmptyTrash { before_ns } => Request::EmptyTrash {
            before_ns: *before_ns,
        },
        Command::Check { replica, paths } => Request::Check {
            replica: *replica,
            paths: paths.iter().map(|p| hex(p.as_bytes())).collect(),
        },
        Command::Accept { replica, path } => Request::Accept {
            replica: *replica,
            path: hex(path.as_bytes()),
        },
        Command::Repair { replica, path } => Request::Repair {
            replica: *replica,
            path: hex(path.as_bytes()),
        },
        Command::Rescan => Request::Rescan,
        Command::Stop => Request::Stop,
    })
}

/// What is asked by whoever brings a caller: after the answer the socket carries a link.
pub(crate) const ATTACH: &str = "{\"do\":\"attach\"}\n";

/// A request from a line.
pub(crate) fn command(text: &str) -> Result<Command, String> {
    let request: Request = serde_json::from_str(text).map_err(|e| e.to_string())?;
    Ok(match request {
        Request::Status => Command::Status,
        Request::Why { path: p } => Command::Why(path(&p)?),
        Request::Resolve { id, keep } => Command::Resolve {
            id,
            keep: Keep::from_word(&keep),
        },
        Request::Approve { id } => Command::Approve(id),
        Request::Reject { id } => Command::Reject(id),
        Request::Restore { replica, key, to } => Command::Restore {
            replica,
            key,
            to: to.as_deref().map(path).transpose()?,
        },
        Request::EmptyTrash { before_ns } => Command::EmptyTrash { before_ns },
        Request::Check { replica, paths } => Command::Check {
            replica,
            paths: paths.iter().map(|p| path(p)).collect::<Result<_, _>>()?,
        },
        Request::Accept { replica, path: p } => Command::Accept {
            replica,
            path: path(&p)?,
        },
        Request::Repair { replica, path: p } => Command::Repair {
            replica,
            path: path(&p)?,
        },
        Request::Rescan => Command::Rescan,
        Request::Stop => Command::Stop,
    })
}

/// An answer as a line.
pub(crate) fn answer_line(answer: &Answer) -> String {
    line(&match answer {
        Answer::Done(count) => Reply::Done { count: *count },
        Answer::Status(status) => Reply::Status(Box::new(status_body(status))),
        Answer::Why(lines) => Reply::Why {
            lines: lines.clone(),
        },
        Answer::Refused { code, why } => Reply::Refused {
            code: *code,
            why: why.clone(),
        },
    })
}

/// An answer from a line.
pub(crate) fn answer(text: &str) -> Result<Answer, String> {
    let reply: Reply = serde_json::from_str(text).map_err(|e| e.to_string())?;
    Ok(match reply {
        Reply::Done { count } => Answer::Done(count),
        Reply::Status(body) => Answer::Status(status(*body)?),
        Reply::Why { lines } => Answer::Why(lines),
        Reply::Refused { code, why } => Answer::Refused { code, why },
    })
}

fn status_body(status: &Status) -> StatusBody {
    let replica = |r: &ReplicaStatus| ReplicaBody {
        label: r.label.clone(),
        location: r.location.clone(),
        state: state_word(r.state),
        why: r.why.clone(),
        notes: r.notes.clone(),
    };
    let problem = |(replica, p): &(usize, Problem)| ProblemBody {
        replica: *replica,
        path: hex(p.path.as_bytes()),
        code: p.code as u16,
        detail: p.detail.clone(),
    };
    StatusBody {
        state: state_word(status.state),
        replicas: status.replicas.iter().map(replica).collect(),
        problems: status.problems.iter().map(problem).collect(),
        counts: counts(&mut status.summary.clone()).map(|n| *n),
    }
}

fn status(body: StatusBody) -> Result<Status, String> {
    let mut summary = Summary::default();
    for (to, count) in counts(&mut summary).into_iter().zip(body.counts) {
        *to = count;
    }
    Ok(Status {
        state: state(&body.state)?,
        replicas: all(body.replicas, replica)?,
        problems: all(body.problems, problem)?,
        summary,
    })
}

/// The counts of a summary in the order in which they travel.
fn counts(s: &mut Summary) -> [&mut u64; 11] {
    [
        &mut s.totals.files,
        &mut s.totals.dirs,
        &mut s.totals.links,
        &mut s.totals.bytes,
        &mut s.conflicts,
        &mut s.holds,
        &mut s.problems,
        &mut s.waiting,
        &mut s.changes,
        &mut s.bytes,
        &mut s.took_ns,
    ]
}

fn all<A, B>(bodies: Vec<A>, one: impl Fn(A) -> Result<B, String>) -> Result<Vec<B>, String> {
    bodies.into_iter().map(one).collect()
}

fn replica(r: ReplicaBody) -> Result<ReplicaStatus, String> {
    let state = state(&r.state)?;
    Ok(ReplicaStatus {
        label: r.label,
        location: r.location,
        state,
        why: r.why,
        notes: r.notes,
    })
}

fn problem(p: ProblemBody) -> Result<(usize, Problem), String> {
    let code = code(p.code).ok_or_else(|| format!("an unknown code: {}", p.code))?;
    let problem = Problem {
        path: path(&p.path)?,
        code,
        detail: p.detail,
    };
    Ok((p.replica, problem))
}

fn state_word(state: State) -> String {
    crate::ui::json::state_word(state).to_owned()
}

fn state(word: &str) -> Result<State, String> {
    State::ALL
        .into_iter()
        .find(|s| state_word(*s) == word)
        .ok_or_else(|| format!("an unknown state: {word}"))
}

fn code(number: u16) -> Option<Code> {
    Code::ALL.into_iter().find(|c| *c as u16 == number)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use instep_replica::Totals;

    use super::*;

    #[test]
    fn requests_survive_their_lines() {
        let odd = RelPath::new(b"a\n\xff/b").unwrap();
        for asked in [
            Command::Status,
            Command::Why(odd.clone()),
            Command::Resolve {
                id: Some("3f".into()),
                keep: Keep::Newest,
            },
            Command::Resolve {
                id: None,
                keep: Keep::Replica("laptop".into()),
            },
            Command::Resolve {
                id: None,
                keep: Keep::Both,
            },
            Command::Approve("7f3a".into()),
            Command::Reject("7f3a".into()),
            Command::Restore {
                replica: 2,
                key: "k".into(),
                to: Some(odd.clone()),
            },
            Command::Check {
                replica: 1,
                paths: vec![odd.clone(), RelPath::new(b"b").unwrap()],
            },
            Command::Accept {
                replica: 1,
                path: odd.clone(),
            },
            Command::Repair {
                replica: 0,
                path: odd,
            },
            Command::EmptyTrash { before_ns: -1 },
            Command::Rescan,
            Command::Stop,
        ] {
            let line = command_line(&asked);
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert_eq!(command(&line).unwrap(), asked);
        }
    }

    #[test]
    fn every_state_and_code_survives() {
        for s in State::ALL {
            assert_eq!(state(&state_word(s)).unwrap(), s);
        }
        for c in Code::ALL {
            assert_eq!(code(c as u16), Some(c));
        }
    }

    #[test]
    fn answers_survive_their_lines() {
        let problem = Problem {
            path: RelPath::new(b"x\xff").unwrap(),
            code: Code::Special,
            detail: "a socket".into(),
        };
        let status = Status {
            replicas: vec![ReplicaStatus {
                label: "A".into(),
                location: "/a".into(),
                state: State::Paused,
                why: "full".into(),
                notes: vec!["polled".into()],
            }],
            state: State::Problem,
            summary: Summary {
                totals: Totals {
                    files: 1,
                    dirs: 2,
                    links: 3,
                    bytes: 4,
                },
                conflicts: 5,
                holds: 6,
                problems: 7,
                waiting: 8,
                changes: 9,
                bytes: 10,
                took_ns: 11,
            },
            problems: vec![(0, problem)],
        };
        for said in [
            Answer::Done(1),
            Answer::Status(status),
            Answer::Why(vec!["a".into(), "b\nc".into()]),
            Answer::Refused {
                code: 1013,
                why: "no such hold".into(),
            },
        ] {
            assert_eq!(answer(&answer_line(&said)).unwrap(), said);
        }
        assert!(command("{\"do\":\"dance\"}").is_err());
        assert!(path("zz").is_err() && path("abc").is_err());
    }
}

//! Requests that change something: carried out by whoever holds the folder, or by a short session of our own.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use instep_engine::command::{Answer, Command};
use instep_engine::report::{Event, Monitor, Silent};
use instep_engine::session::{Session, SessionOptions};
use instep_replica::Replica;
use instep_replica::env::Env;

use super::Context;
use crate::args;
use crate::connect::Purpose;
use crate::error::{Exit, Failure};
use crate::live;
use crate::targets::{Target, with_members};

/// Tells when everything known is done.
struct Settled(mpsc::Sender<()>);

impl Monitor for Settled {
    fn event(&mut self, event: Event) {
        if matches!(event, Event::Settled(_)) {
            // Nobody listens after the first time.
            let _unheard = self.0.send(());
        }
    }
}

/// How long a session may take to settle before it is asked.
const SETTLED: Duration = Duration::from_mins(10);

/// The session has stopped because it answered; the answer is on its way.
const PATIENCE: Duration = Duration::from_secs(10);

/// Carries requests out on a share, in order; how many objects they concerned. A replica in a request is its
/// place in the running session, or else among the members of the share.
pub(crate) fn carry_out(
    target: &Target,
    requests: &[Command],
    context: &Context,
) -> Result<u64, Failure> {
    let members = with_members(std::slice::from_ref(target));
    for member in &members {
        if let Some(mut client) = member.client()? {
            let ask = |request: &Command| client.ask(request).and_then(accepted);
            return requests.iter().map(ask).sum();
        }
    }
    let env = Context::env(None)?;
    let settings = context.settings(&args::Session::default());
    let mut replicas = Vec::new();
    let mut places = Vec::new();
    for member in &members {
        match member.open(&env, &settings, Purpose::Change { create: false }) {
            Ok(replica) => {
                places.push(Some(replicas.len()));
                replicas.push(replica);
            }
            Err(why) if member.member.replica == target.member.replica => return Err(why),
            // A member that cannot be used now learns of it later, as any replica that was away.
            Err(why) => {
                places.push(None);
                let label = &member.member.label;
                context.output.note(&format!("note  {label}: {why}"));
            }
        }
    }
    let requests = &placed(requests, &places)?;
    if target.member.mirror {
        // A session would take what comes back for an extra at the target, and displace it again.
        if let Some(count) = restore_alone(&replicas, requests)? {
            return Ok(count);
        }
    }
    let count = ask_own(&env, &replicas, target.member.mirror, requests)?;
    settle(env, replicas, target.member.mirror)?;
    Ok(count)
}

/// The requests with the places that the members have in a session of those that could be opened.
fn placed(requests: &[Command], places: &[Option<usize>]) -> Result<Vec<Command>, Failure> {
    let at = |replica: usize| {
        places.get(replica).copied().flatten().ok_or_else(|| {
            Failure::new(
                1029,
                Exit::Failed,
                "what is to be changed cannot be reached",
            )
            .why("the folder that has it cannot be opened now")
            .remedy("instep status")
        })
    };
    let place = |request: &Command| {
        let mut placed = request.clone();
        if let Command::Restore { replica, .. }
        | Command::Check { replica, .. }
        | Command::Accept { replica, .. }
        | Command::Repair { replica, .. } = &mut placed
        {
            *replica = at(*replica)?;
        }
        Ok(placed)
    };
    requests.iter().map(place).collect()
}

/// Brings objects back without a session, if that is all there is to do.
fn restore_alone(
    replicas: &[Arc<dyn Replica>],
    requests: &[Command],
) -> Result<Option<u64>, Failure> {
    let mut count = 0;
    for request in requests {
        let Command::Restore { replica, key, to } = request else {
            return Ok(None);
        };
        if let Some(replica) = replicas.get(*replica) {
            replica.restore(key, to.as_ref())?;
            count += 1;
        }
    }
    Ok(Some(count))
}

/// Asks a session of our own, which stops when it has answered.
fn ask_own(
    env: &Arc<dyn Env>,
    replicas: &[Arc<dyn Replica>],
    mirror: bool,
    requests: &[Command],
) -> Result<u64, Failure> {
    let options = SessionOptions {
        mirror,
        allow_empty: true,
        ..SessionOptions::default()
    };
    let (tell, settled) = mpsc::channel();
    let mut session = Session::start(
        Arc::clone(env),
        replicas.to_vec(),
        options,
        Box::new(Settled(tell)),
    )
    .map_err(live::failure)?;
    let handle = session.handle();
    let asked = requests.to_vec();
    let (send, receive) = mpsc::channel();
    let ask = move || {
        // What is missing counts only after a while: a decision about it needs a session that has settled.
        // One that does not settle in time is asked all the same.
        let _late = settled.recv_timeout(SETTLED);
        let answers: Vec<Option<Answer>> = asked.into_iter().map(|r| handle.request(r)).collect();
        handle.stop();
        // Whoever asked has given up when nobody receives this.
        drop(send.send(answers));
    };
    // Not joined: when the session fails it may answer nobody.
    std::thread::Builder::new()
        .name("request".into())
        .spawn(ask)
        .map_err(|e| {
            Failure::new(1900, Exit::Failed, "start a thread for a request").why(e.to_string())
        })?;
    session.run().map_err(live::failure)?;
    let answers = receive.recv_timeout(PATIENCE).map_err(|_| unanswered())?;
    answers
        .into_iter()
        .map(|a| a.map_or_else(|| Err(unanswered()), accepted))
        .sum()
}

fn unanswered() -> Failure {
    Failure::new(1900, Exit::Failed, "the session ended before it answered")
        .effect("it is not known whether the request was carried out")
        .remedy("run the command again")
}

/// Brings what was decided to all members that are there.
fn settle(env: Arc<dyn Env>, replicas: Vec<Arc<dyn Replica>>, mirror: bool) -> Result<(), Failure> {
    let options = SessionOptions {
        once: true,
        mirror,
        allow_empty: true,
        ..SessionOptions::default()
    };
    let mut session =
        Session::start(env, replicas, options, Box::new(Silent)).map_err(live::failure)?;
    session.run().map(drop).map_err(live::failure)
}

/// An answer as a count, or why it was refused.
pub(crate) fn accepted(answer: Answer) -> Result<u64, Failure> {
    match answer {
        Answer::Done(count) => Ok(count),
        Answer::Status(_) | Answer::Why(_) => Ok(0),
        Answer::Refused { code, why } => {
            let known = crate::explain::PAGES.iter().any(|p| p.code == code);
            Err(
                Failure::new(if known { code } else { 1029 }, Exit::Failed, why)
                    .why("the session refused it as things stand")
                    .remedy("instep status"),
            )
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_code_if_that_has_a_page() {
        let refused = |code| {
            accepted(Answer::Refused {
                code,
                why: "no".into(),
            })
            .unwrap_err()
            .code
        };
        assert_eq!(refused(1013), 1013);
        assert_eq!(refused(9), 1029);
        assert_eq!(accepted(Answer::Done(4)).unwrap(), 4);
    }
}

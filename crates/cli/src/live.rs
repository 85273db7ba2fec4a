//! A session in the foreground: the engine on this thread, printing on another, signals and the control
//! socket on theirs.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use instep_core::plan::Code;
use instep_engine::report::{Event, Monitor, State};
use instep_engine::session::{End, Session, SessionError, SessionOptions};
use instep_remote::published::Published;
use instep_replica::Replica as _;

use crate::args;
use crate::commands::Context;
use crate::commands::sync::Opened;
use crate::control::server;
use crate::error::{Exit, Failure};
use crate::far::guests::Guests;
use crate::places;
use crate::reload::{Applied, Reload};
use crate::signals::Taken;
use crate::system_env::wall_ns;
use crate::ui::json::Stream;
use crate::ui::text::Lines;

/// How often bursts and summaries are looked at.
const TICK: Duration = Duration::from_millis(100);

/// What the printing thread is told.
enum Told {
    /// Something happened in the session.
    Event(Event),
    /// The configuration was read again.
    Config(Result<Applied, Failure>),
}

type Tell = mpsc::Sender<(Told, i64)>;

/// Hands events to the thread that prints.
struct Channel(Tell);

impl Monitor for Channel {
    fn event(&mut self, event: Event) {
        // Nobody listens any more only when printing has ended, which ends no work.
        drop(self.0.send((Told::Event(event), wall_ns())));
    }
}

/// Prints events in one way or the other.
enum Renderer {
    Lines(Box<Lines>),
    Json(Stream),
}

impl Renderer {
    fn told(&mut self, told: &Told, now_ns: i64) {
        match (self, told) {
            (Self::Lines(lines), Told::Event(event)) => lines.event(event, now_ns),
            (Self::Lines(lines), Told::Config(result)) => lines.config(result.as_ref()),
            (Self::Json(stream), Told::Event(event)) => stream.event(event, now_ns),
            (Self::Json(stream), Told::Config(result)) => stream.config(result.as_ref(), now_ns),
        }
    }

    fn tick(&mut self) {
        if let Self::Lines(lines) = self {
            lines.tick(wall_ns());
        }
    }

    fn finish(&mut self) {
        if let Self::Lines(lines) = self {
            lines.finish(wall_ns());
        }
    }
}

/// Prints until the session is over, and gives the renderer back.
fn print_events(events: &mpsc::Receiver<(Told, i64)>, mut renderer: Renderer) -> Renderer {
    loop {
        match events.recv_timeout(TICK) {
            Ok((told, now)) => renderer.told(&told, now),
            Err(RecvTimeoutError::Timeout) => renderer.tick(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    renderer.finish();
    renderer
}

/// Runs a session until it is done or told to stop.
pub(crate) fn run(
    opened: Opened,
    options: SessionOptions,
    session: &args::Session,
    context: &Context,
    signals: Taken,
) -> Result<Exit, Failure> {
    let output = &context.output;
    let (tell, receive) = mpsc::channel();
    let renderer = if output.style.json {
        Renderer::Json(Stream::new(output.clone()))
    } else {
        Renderer::Lines(Box::new(Lines::new(output.clone(), options.once)))
    };
    let printer = std::thread::Builder::new()
        .name("printer".into())
        .spawn(move || print_events(&receive, renderer))
        .map_err(|e| {
            Failure::new(1900, Exit::Failed, "start the thread that prints").why(e.to_string())
        })?;
    let ended = engine(opened, options, session, context, tell, signals);
    let renderer = printer.join().ok();
    let (end, caught) = ended?;
    let mut all = endings(&end);
    all.extend(caught);
    let first = Exit::first(&all);
    if let Some(Renderer::Json(mut stream)) = renderer {
        stream.exit(first, &all, wall_ns());
    }
    Ok(first)
}

/// The session itself. Everything that tells the printing thread is gone when this returns.
fn engine(
    opened: Opened,
    options: SessionOptions,
    session: &args::Session,
    context: &Context,
    tell: Tell,
    signals: Taken,
) -> Result<(End, Option<Exit>), Failure> {
    let Opened {
        env,
        replicas,
        rules,
        published,
        far,
    } = opened;
    let place_of = |p: &Arc<Published>| replicas.iter().position(|r| r.id() == p.id());
    let places = published
        .into_iter()
        .filter_map(|p| Some((place_of(&p)?, p)));
    let ours: Vec<_> = places.collect();
    let ids: Vec<_> = replicas.iter().map(|r| r.id()).collect();
    let once = options.once;
    let monitor = Box::new(Channel(tell.clone()));
    let mut engine = Session::start(env, replicas, options, monitor).map_err(failure)?;
    let handle = engine.handle();
    let caught = signals.listen(move || handle.stop())?;
    let handle = engine.handle();
    let settings = context.settings(session);
    let guests = (!once).then(|| Guests::of(handle.clone(), ours, settings, false));
    let answer = move |command| handle.request(command);
    let server = server::serve(&places::runtime_dir(), &ids, answer, guests)?;
    let say = move |told| drop(tell.send((Told::Config(told), wall_ns())));
    let reload = (!once).then(|| Reload::start(context, session, rules, say));
    let end = engine.run().map_err(failure);
    // What was done here is durable before the others are told that it is over.
    drop(engine);
    drop(far);
    drop(reload.transpose()?);
    drop(server);
    Ok((end?, caught.exit()))
}

/// A session that cannot run.
pub(crate) fn failure(error: SessionError) -> Failure {
    match error {
        SessionError::EmptySource => Failure::new(
            1008,
            Exit::Usage,
            "the source of the mirror is empty and a target is not",
        )
        .why("everything at the target would go to trash; an unmounted disk looks like this")
        .remedy("mount the source or correct the path")
        .remedy("add --allow-empty if the targets are to be emptied"),
        SessionError::Replica(error) => Failure::from(error),
        SessionError::TooFew => Failure::new(1000, Exit::Usage, "at least two folders are needed")
            .why("one folder is equal to itself already")
            .remedy("name another folder"),
    }
}

/// Every way in which the session's end wants attention.
pub(crate) fn endings(end: &End) -> Vec<Exit> {
    let mut all = Vec::new();
    for (_, problem) in &end.problems {
        all.push(match problem.code {
            Code::NoSpace => Exit::NoSpace,
            Code::DotReused | Code::Damaged | Code::Contradiction => Exit::Damage,
            Code::RootGone => Exit::Unreachable,
            _ => Exit::SomeFailed,
        });
    }
    match end.state {
        State::Offline => all.push(Exit::Unreachable),
        State::Paused => all.push(Exit::SomeFailed),
        _ => {}
    }
    if end.summary.holds > 0 {
        all.push(Exit::Held);
    }
    if end.summary.conflicts > 0 {
        all.push(Exit::Conflicts);
    }
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use instep_core::path::RelPath;
    use instep_core::plan::Problem;
    use instep_engine::report::Summary;

    use super::*;
    use crate::snapshot;

    fn end(codes: &[Code], summary: Summary, state: State) -> Exit {
        let problem = |code: &Code| Problem {
            path: RelPath::root(),
            code: *code,
            detail: String::new(),
        };
        let problems = codes.iter().map(|c| (0, problem(c))).collect();
        Exit::first(&endings(&End {
            summary,
            stopped: false,
            state,
            problems,
        }))
    }

    #[test]
    fn the_exit_code_follows_from_what_is_left() {
        let none = Summary::default();
        assert_eq!(end(&[], none.clone(), State::InSync), Exit::Done);
        assert_eq!(
            end(&[Code::Unreadable], none.clone(), State::Problem),
            Exit::SomeFailed
        );
        assert_eq!(
            end(
                &[Code::Special, Code::NoSpace],
                none.clone(),
                State::Problem
            ),
            Exit::NoSpace
        );
        assert_eq!(end(&[], none.clone(), State::Offline), Exit::Unreachable);
        let both = Summary {
            conflicts: 2,
            holds: 1,
            ..none.clone()
        };
        assert_eq!(end(&[], both, State::Held), Exit::Held);
        assert_eq!(
            end(
                &[],
                Summary {
                    conflicts: 2,
                    ..none
                },
                State::InSync
            ),
            Exit::Conflicts
        );
    }

    #[test]
    fn a_session_that_cannot_start_says_why() {
        snapshot::check("error-E1008", &failure(SessionError::EmptySource).render());
        assert_eq!(failure(SessionError::TooFew).code, 1000);
    }
}

//! The side that is started on another machine: it takes part with one folder until its caller hangs up.
//!
//! Invariant: nothing is printed on standard output but what belongs to the link; and when the caller is gone, whatever
//! was begun is finished and made durable before the program ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use instep_core::id::ShareId;
use instep_core::policy::Role;
use instep_engine::report::Silent;
use instep_engine::session::{Handle, Session, SessionOptions};
use instep_fs::place;
use instep_remote::observed::Observed;
use instep_remote::published::Published;
use instep_remote::wired;
use instep_replica::Replica;
use instep_replica::env::Env;
use instep_wire::link::Link;
use instep_wire::pipe::Side;

use super::guests::{Guests, Stay};
use super::news::{News, Reporter};
use super::relay;
use super::request::{self, Ask, Card, Opening, Seen, Tell, Trouble};
use crate::args;
use crate::commands::Context;
use crate::connect::{self, Purpose, Settings};
use crate::control::server;
use crate::error::{Exit, Failure};
use crate::places;
use crate::roots::{self, Choice, Root};
use crate::signals::Taken;

/// What the caller is called in messages here.
pub(super) const CALLER: &str = "the caller";
/// For so long the first look may take before the rest of it is told piece by piece.
const LOOKED: Duration = Duration::from_secs(8);

/// Serves whoever is at the other end of standard input and output.
pub(crate) fn run(context: &Context) -> Result<Exit, Failure> {
    let path = relay::asked_first()?;
    if let Some(holder) = relay::holder(&path) {
        relay::relay(holder);
        return Ok(Exit::Done);
    }
    let signals = Taken::begin()?;
    let settings = context.settings(&args::Session::default());
    let link = Link::over(
        std::io::stdin(),
        std::io::stdout(),
        Side::Called,
        CALLER,
        Duration::from_secs(30),
    );
    let link = Arc::new(link.map_err(|e| super::unreached::broken(CALLER, &e))?);
    request::greet(&link, CALLER)?;
    while let Some(ask) = request::asked(&link) {
        match ask {
            Ask::Look { path } => match look(&path, &settings) {
                Ok(seen) => request::tell(&link, &Tell::Seen(Box::new(seen))),
                Err(failure) => refuse(&link, &failure),
            },
            Ask::Order(_) => refuse(&link, &bad_request("an order, and no hub runs here")),
            Ask::Open(opening) => match open(&opening, context) {
                Ok(opened) => {
                    let taken = if opening.preview {
                        show(&link, &opening, opened)
                    } else {
                        take_part(&link, &opening, opened, context, signals)
                    };
                    return taken.inspect_err(|failure| refuse(&link, failure));
                }
                Err(failure) => refuse(&link, &failure),
            },
        }
    }
    Ok(Exit::Done)
}

pub(super) fn refuse(link: &Link, failure: &Failure) {
    request::tell(link, &Tell::Failed(Box::new(Trouble::of(failure))));
}

pub(super) fn bad_request(what: &str) -> Failure {
    Failure::new(1041, Exit::Usage, format!("the request has {what}"))
        .why("the two programs do not understand each other")
        .remedy("use the same version on both machines")
}

/// A path as the caller meant it: relative to the home directory, where `~` may stand for it.
pub(super) fn place_of(text: &str) -> Result<PathBuf, Failure> {
    let path = request::take_path(text).ok_or_else(|| bad_request("no path"))?;
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let below_home = path.strip_prefix("~").map(Path::to_owned);
    let relative = below_home.unwrap_or(path);
    if relative.is_absolute() {
        return Ok(relative);
    }
    let home = home.ok_or_else(|| {
        Failure::new(1042, Exit::Usage, "there is no home directory")
            .why("HOME is not set where the program runs")
            .remedy("name the folder from /")
    })?;
    Ok(home.join(relative))
}

pub(super) fn look(path: &str, settings: &Settings) -> Result<Seen, Failure> {
    let path = place_of(path)?;
    let seen = connect::inspect(&path)?;
    let empty = connect::is_empty(&seen.path, settings);
    Ok(Seen::of(&seen, empty))
}

struct Opened {
    env: Arc<dyn Env>,
    local: Arc<dyn Replica>,
}

fn open(opening: &Opening, context: &Context) -> Result<Opened, Failure> {
    let typed = place_of(&opening.path)?;
    let role = if opening.mirror {
        Role::Target
    } else {
        Role::Both
    };
    let root = Root {
        label: opening.label.clone(),
        seen: connect::inspect(&typed)?,
        typed,
        role,
    };
    let roots = [root];
    roots::check(&roots, opening.create)?;
    if !opening.preview {
        roots::check_free(&roots)?;
    }
    let share: ShareId = opening.share.parse().map_err(|_| bad_request("no share"))?;
    let choice = if opening.new {
        Choice::New
    } else {
        Choice::Existing(share)
    };
    let env = Context::env(None)?;
    let settings = context.settings(&args::Session::default());
    let create = opening.create;
    let purpose = if opening.preview {
        Purpose::Preview
    } else {
        Purpose::Change { create }
    };
    let [root] = &roots;
    let share = (choice, share);
    let local = connect::open(&env, &settings, root, share, opening.mirror, purpose)?;
    Ok(Opened { env, local })
}

/// What is here is known before it is told, if that does not take long: so the caller can say what the meeting will do.
fn wait_until(settled: &AtomicBool) {
    let began = place::monotonic();
    let waited = || place::monotonic().saturating_sub(began);
    while !settled.load(Ordering::SeqCst) && waited() < LOOKED {
        place::pause(Duration::from_millis(2));
    }
}

/// The folder here and the caller's, as a session here sees them.
struct Party {
    published: Arc<Published>,
    observed: Arc<Observed>,
    mirror: bool,
}

impl Party {
    fn of(opening: &Opening, local: Arc<dyn Replica>) -> Result<Self, Failure> {
        let role = if opening.mirror {
            Role::Source
        } else {
            Role::Both
        };
        let met = opening.caller.met(role);
        let met = met.ok_or_else(|| bad_request("no introduction"))?;
        let published = Arc::new(Published::new(local));
        let observed = super::observed(&met, published.share(), &published);
        let mirror = opening.mirror;
        Ok(Self {
            published,
            observed,
            mirror,
        })
    }

    /// Our own place in the session: a mirror's source comes first.
    fn place(&self) -> usize {
        usize::from(self.mirror)
    }

    fn replicas(&self) -> Vec<Arc<dyn Replica>> {
        let (ours, theirs) = (self.published.clone(), self.observed.clone());
        if self.mirror {
            vec![theirs, ours]
        } else {
            vec![ours, theirs]
        }
    }

    /// Lets others in, too, unless the session goes one way.
    fn guests(&self, handle: Handle, context: &Context) -> Arc<Guests> {
        let ours = (self.place(), Arc::clone(&self.published));
        let ours = if self.mirror { Vec::new() } else { vec![ours] };
        let settings = context.settings(&args::Session::default());
        Guests::of(handle, ours, settings, true)
    }

    /// Tells the caller what is here once it was looked at, and stays until it hangs up.
    fn talk(self, link: &Arc<Link>, told: (Receiver<News>, Arc<AtomicBool>), stay: Stay) {
        let (news, settled) = told;
        let to = Arc::clone(link);
        std::thread::spawn(move || news.iter().for_each(|n| request::tell(&to, &Tell::News(n))));
        let link = Arc::clone(link);
        std::thread::spawn(move || {
            wait_until(&settled);
            let _over = wired::hold(&link, &self.published, &self.observed);
            // Others may have come meanwhile.
            drop(stay);
        });
    }
}

/// Tells what is here to a caller who plans; nothing is changed.
fn show(link: &Arc<Link>, opening: &Opening, opened: Opened) -> Result<Exit, Failure> {
    let party = Party::of(opening, opened.local)?;
    let options = SessionOptions {
        mirror: opening.mirror,
        allow_empty: true,
        ..SessionOptions::default()
    };
    let silent = Box::new(Silent);
    let mut session = Session::start(opened.env, party.replicas(), options, silent)
        .map_err(crate::live::failure)?;
    session.preview().map_err(crate::live::failure)?;
    request::tell(link, &Tell::Opened(Card::of(party.published.as_ref())));
    let _over = wired::hold(link, &party.published, &party.observed);
    Ok(Exit::Done)
}

/// Takes part until the caller hangs up or the program is told to stop.
fn take_part(
    link: &Arc<Link>,
    opening: &Opening,
    opened: Opened,
    context: &Context,
    signals: Taken,
) -> Result<Exit, Failure> {
    let party = Party::of(opening, opened.local)?;
    let options = SessionOptions {
        mirror: opening.mirror,
        allow_empty: opening.allow_empty,
        keep_trash: Some(context.keep_trash()),
        ..SessionOptions::default()
    };
    let (reporter, news, settled) = Reporter::new(party.place(), party.published.clone());
    let mut session = Session::start(opened.env, party.replicas(), options, Box::new(reporter))
        .map_err(crate::live::failure)?;
    let handle = session.handle();
    let caught = signals.listen(move || handle.stop())?;
    request::tell(link, &Tell::Opened(Card::of(party.published.as_ref())));
    let handle = session.handle();
    let guests = party.guests(handle.clone(), context);
    let stay = guests.stay();
    let answer = move |command| handle.request(command);
    let (dir, ours) = (places::runtime_dir(), [party.published.id()]);
    // Where no socket can be made, nobody else can come.
    let server = server::serve(&dir, &ours, answer, Some(guests));
    party.talk(link, (news, settled), stay);
    let end = session.run().map_err(crate::live::failure);
    drop(session);
    drop(server);
    end?;
    Ok(caught.exit().unwrap_or(Exit::Done))
}

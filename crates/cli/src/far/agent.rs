//! The side that is started on another machine: it takes part with one folder until its caller hangs up.
//!
//! Invariant: nothing is printed on standard output but what belongs to the link; and when the caller is gone, whatever
//! was begun is finished and made durable before the program ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use instep_core::id::ShareId;
use instep_core::policy::Role;
use instep_engine::report::Silent;
use instep_engine::session::{Session, SessionOptions};
use instep_fs::place;
use instep_remote::published::Published;
use instep_remote::wired;
use instep_replica::Replica;
use instep_replica::env::Env;
use instep_wire::link::Link;
use instep_wire::pipe::Side;

use super::guests::Guests;
use super::news::Reporter;
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
                Ok(opened) if opening.preview => return show(&link, &opening, opened),
                Ok(opened) => return take_part(&link, &opening, opened, context, signals),
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

/// Tells what is here to a caller who plans; nothing is changed.
fn show(link: &Arc<Link>, opening: &Opening, opened: Opened) -> Result<Exit, Failure> {
    let Opened { env, local } = opened;
    let met = opening.caller.met(Role::Both);
    let met = met.ok_or_else(|| bad_request("no introduction"))?;
    let published = Arc::new(Published::new(local));
    let observed = super::observed(&met, published.share(), &published);
    let options = SessionOptions {
        mirror: opening.mirror,
        allow_empty: true,
        ..SessionOptions::default()
    };
    let replicas: Vec<Arc<dyn Replica>> = vec![published.clone(), observed.clone()];
    let silent = Box::new(Silent);
    let mut session =
        Session::start(env, replicas, options, silent).map_err(crate::live::failure)?;
    session.preview().map_err(crate::live::failure)?;
    request::tell(link, &Tell::Opened(Card::of(published.as_ref())));
    let _over = wired::hold(link, &published, &observed);
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
    let Opened { env, local } = opened;
    let role = if opening.mirror {
        Role::Source
    } else {
        Role::Both
    };
    let Some(met) = opening.caller.met(role) else {
        let failure = bad_request("no introduction");
        refuse(link, &failure);
        return Err(failure);
    };
    let published = Arc::new(Published::new(local));
    let observed = super::observed(&met, published.share(), &published);
    let options = SessionOptions {
        mirror: opening.mirror,
        allow_empty: opening.allow_empty,
        keep_trash: Some(context.keep_trash()),
        ..SessionOptions::default()
    };
    let replicas: Vec<Arc<dyn Replica>> = if opening.mirror {
        vec![observed.clone(), published.clone()]
    } else {
        vec![published.clone(), observed.clone()]
    };
    let ours = usize::from(opening.mirror);
    let (reporter, news, settled) = Reporter::new(ours, published.clone());
    let mut session =
        Session::start(env, replicas, options, Box::new(reporter)).map_err(crate::live::failure)?;
    let handle = session.handle();
    let caught = signals.listen(move || handle.stop())?;
    request::tell(link, &Tell::Opened(Card::of(published.as_ref())));
    let handle = session.handle();
    let guests = vec![(ours, Arc::clone(&published))];
    let guests = if opening.mirror { Vec::new() } else { guests };
    let settings = context.settings(&args::Session::default());
    let guests = Guests::of(handle.clone(), guests, settings, true);
    let stay = guests.stay();
    let answer = move |command| handle.request(command);
    let dir = places::runtime_dir();
    let server = server::serve(&dir, &[published.id()], answer, Some(guests));
    let to = Arc::clone(link);
    std::thread::spawn(move || news.iter().for_each(|n| request::tell(&to, &Tell::News(n))));
    let (link, local) = (Arc::clone(link), published);
    let talking = std::thread::spawn(move || {
        wait_until(&settled);
        let _over = wired::hold(&link, &local, &observed);
        // Others may have come meanwhile.
        drop(stay);
    });
    let end = session.run().map_err(crate::live::failure);
    drop(session);
    drop(talking);
    // Where no socket can be made, nobody else can come.
    drop(server);
    end?;
    Ok(caught.exit().unwrap_or(Exit::Done))
}

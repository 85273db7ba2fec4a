//! `serve`: runs a hub until it is stopped.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use instep_core::id::ShareId;

use super::Context;
use crate::args;
use crate::error::{Exit, Failure};
use crate::far::hubs::odd;
use crate::far::hubs::{Address, Device};
use crate::far::request;
use crate::hub::data::{Data, Unchanged};
use crate::hub::desk;
use crate::hub::errands;
use crate::hub::order::{Answer, Order};
use crate::hub::reception::{Hub, World};
use crate::hub::rights::{Book, Grant, Kept, Refusal};
use crate::signals::Taken;
use crate::{connect, places};

/// How long the first code holds.
const FIRST_CODE: Duration = Duration::from_mins(10);

/// Carries it out.
pub(crate) fn run(args: &args::Serve, context: &Context) -> Result<Exit, Failure> {
    let signals = Taken::begin()?;
    let data = Data::open(&args.data.clone().unwrap_or_else(places::hub_dir))?;
    for hub in &args.join {
        join(&data, hub, args, context)?;
    }
    for wanted in &args.folder {
        add_folder(&data, wanted)?;
    }
    let output = context.output.clone();
    let path = data.path().to_owned();
    let world = World {
        env: Context::env(None)?,
        settings: context.settings(&args::Session::default()),
        keep_trash: context.keep_trash(),
        say: Arc::new(move |line| output.line(line)),
    };
    let hub = Hub::start(data, args.listen, world)?;
    let desk = desk::open(&hub, &path)?;
    let over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&over);
    let caught = signals.listen(move || told.store(true, Ordering::SeqCst))?;
    let output = &context.output;
    output.line(&format!(
        "hub ready  sync://{}  key {}",
        hub.address(),
        hub.device().fingerprint()
    ));
    if !hub.has_admin() {
        let code = hub.invite(Grant::Hub, FIRST_CODE, 1)?;
        output.line(&format!(
            "first administrator:  instep join HOST   with the code  {code}  (10 min)"
        ));
    }
    let is_over = || over.load(Ordering::SeqCst);
    let ended = std::thread::scope(|threads| {
        threads.spawn(|| hub.tidy(is_over));
        let ended = hub.run(is_over);
        over.store(true, Ordering::SeqCst);
        ended
    });
    drop(desk);
    ended?;
    Ok(caught.exit().unwrap_or(Exit::Done))
}

/// A folder of the user's that is a share's copy here.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The share.
    pub(crate) share: String,
    /// The folder.
    pub(crate) folder: PathBuf,
}

impl Wanted {
    /// Where it is, as the book has it.
    fn place(&self) -> String {
        let full = std::path::absolute(&self.folder).unwrap_or_else(|_| self.folder.clone());
        request::put_path(&full)
    }

    /// `NAME=FOLDER`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (share, folder) = text.split_once('=').ok_or("it is written NAME=FOLDER")?;
        Ok(Self {
            share: share.to_owned(),
            folder: PathBuf::from(folder),
        })
    }
}

fn change<T>(
    data: &Data,
    change: impl FnOnce(&mut Book) -> Result<T, Refusal>,
) -> Result<T, Failure> {
    data.change(change).map_err(|e| match e {
        Unchanged::Failed(failure) => failure,
        Unchanged::Refused(refusal) => errands::refused(&refusal),
    })
}

/// The share that a folder is in; a new one, where it is in none.
fn share_of(folder: &Path) -> Result<ShareId, Failure> {
    let seen = connect::inspect(folder)?;
    let own = seen.memberships.iter().find(|m| !m.mirror).map(|m| m.share);
    match own {
        Some(id) => Ok(id),
        None => Ok(ShareId(Context::env(None)?.random())),
    }
}

fn add_folder(data: &Data, wanted: &Wanted) -> Result<(), Failure> {
    if data.ask(|book| book.share(&wanted.share).is_some()) {
        return Ok(());
    }
    let kept = Kept {
        folder: Some(wanted.place()),
        ..Kept::new(share_of(&wanted.folder)?)
    };
    change(data, |book| book.add_share(&wanted.share, kept))
}

/// Has this hub keep what it was invited to at another hub, together with that.
fn join(data: &Data, hub: &Address, args: &args::Serve, context: &Context) -> Result<(), Failure> {
    let device = Device::of(data.path().to_owned());
    if device.knows(hub)? {
        return Ok(());
    }
    let joined = super::join::enter_as(&device, hub, &args.entry, context)?;
    let Some(share) = joined.share else {
        return Ok(());
    };
    let Answer::Shares { shares } = device.order(hub, Order::Shares)? else {
        return Err(odd(&hub.to_string()));
    };
    let line = shares.into_iter().find(|line| line.name == share);
    let line = line.ok_or_else(|| errands::no_share(&share))?;
    let folder = args.folder.iter().find(|wanted| wanted.share == share);
    let kept = Kept {
        folder: folder.map(Wanted::place),
        ..Kept::new(&line.id)
    };
    change(data, |book| {
        book.add_share(&share, kept)?;
        book.follow(&share, hub.clone())
    })
}

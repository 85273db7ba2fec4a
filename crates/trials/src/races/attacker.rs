//! Who exchanges the parts of a path, without rest while an operation is under way, and not at all between two.
//!
//! Owns the exchanges. Invariant: all that is exchanged is the part itself, by its name; whatever is there.

use std::fs::{self, File};
use std::hint::spin_loop;
use std::io;
use std::os::unix::fs::{lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvError, Sender, channel};

use instep_testkit::prng::Prng;
use rustix::fs::{RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_uid};

/// What is exchanged for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flip {
    /// A directory for a link that leads out; a file for one too.
    Link,
    /// A directory for a file; a file for a directory.
    Other,
    /// A link that leads out for a file, when the directory is away already.
    LinkOther,
    /// Taken away and brought back.
    Away,
}

#[derive(Clone, Copy)]
enum Aside {
    Link,
    Other,
    Empty,
}

impl Flip {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Link, Self::Other, Self::LinkOther, Self::Away];

    /// With what the part is exchanged, one after another; at the end all is as it was.
    fn steps(self) -> &'static [Aside] {
        match self {
            Self::Link => &[Aside::Link, Aside::Link],
            Self::Other => &[Aside::Other, Aside::Other],
            Self::LinkOther => &[Aside::Link, Aside::Other, Aside::Other, Aside::Link],
            Self::Away => &[Aside::Empty, Aside::Empty],
        }
    }
}

/// The side of whoever makes the calls. The other side ends when this one is gone.
#[derive(Debug)]
pub struct Signals {
    state: Arc<State>,
    start: Sender<()>,
    told: Receiver<()>,
}

/// The side of the attacker, who tells when the first exchange was made, and when the last.
#[derive(Debug)]
pub struct Told {
    state: Arc<State>,
    started: Receiver<()>,
    tell: Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    go: AtomicBool,
    flips: AtomicU64,
}

/// Both sides.
pub fn signals() -> (Signals, Told) {
    let state = Arc::new(State::default());
    let ((start, started), (tell, told)) = (channel(), channel());
    let signals = Signals {
        state: Arc::clone(&state),
        start,
        told,
    };
    let told = Told {
        state,
        started,
        tell,
    };
    (signals, told)
}

impl Signals {
    /// Does something while parts are exchanged. At least one was before it begins, and none is afterwards.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        self.state.go.store(true, Ordering::SeqCst);
        let gone = |_| io::Error::other("the attacker is gone");
        self.start.send(()).map_err(|_| gone(RecvError))?;
        self.told.recv().map_err(gone)?;
        let done = work();
        self.state.go.store(false, Ordering::SeqCst);
        self.told.recv().map_err(gone)?;
        Ok(done)
    }

    /// How often something was exchanged.
    pub fn flips(&self) -> u64 {
        self.state.flips.load(Ordering::SeqCst)
    }
}

/// Where a part is, and what is kept aside for it.
#[derive(Debug)]
pub struct Attacker {
    /// Everything is below it, and another user may not be able to come here by a path.
    top: File,
    top_path: PathBuf,
    at: PathBuf,
    aside: [PathBuf; 3],
    user: Option<u32>,
}

impl Attacker {
    /// Who exchanges what is at a path below `top`, as another user if one is given; `aside` is a directory there too.
    pub fn new(top: &Path, at: &str, aside: &str, user: Option<u32>) -> io::Result<Self> {
        let aside = Path::new(aside);
        Ok(Self {
            top: File::open(top)?,
            top_path: top.to_owned(),
            at: at.into(),
            aside: ["link", "other", "empty"].map(|name| aside.join(format!("aside-{name}"))),
            user,
        })
    }

    /// Where the part may be besides its place.
    pub fn hides(&self) -> impl Iterator<Item = PathBuf> {
        self.aside.iter().map(|aside| self.top_path.join(aside))
    }

    /// Makes what the part is exchanged for; of a directory it is a file, and the other way round.
    pub fn arm(&self, leads_to: &Path, is_dir: bool) -> io::Result<()> {
        for path in self.hides() {
            remove(&path)?;
        }
        let [link, other, _] = self.aside.each_ref().map(|aside| self.top_path.join(aside));
        symlink(leads_to, &link)?;
        if is_dir {
            fs::write(&other, "in the place of a directory")?;
        } else {
            fs::create_dir(&other)?;
            fs::write(other.join("below"), "in the place of a file")?;
        }
        lchown(&link, self.user, self.user)?;
        lchown(&other, self.user, self.user)
    }

    /// Exchanges while it is told to, until nobody can tell it any more.
    pub fn run(&self, flip: Flip, told: &Told, seed: u64) {
        if let Some(id) = self.user {
            // Of this thread alone.
            let changed =
                set_thread_gid(Gid::from_raw(id)).and_then(|()| set_thread_uid(Uid::from_raw(id)));
            changed.expect("the superuser may become anybody");
        }
        let mut prng = Prng::new(seed);
        while told.started.recv().is_ok() {
            self.exchange(flip, told, &mut prng);
            let _over = told.tell.send(());
            while told.state.go.load(Ordering::SeqCst) {
                self.exchange(flip, told, &mut prng);
            }
            let _over = told.tell.send(());
        }
    }

    /// Once, and back.
    fn exchange(&self, flip: Flip, told: &Told, prng: &mut Prng) {
        for step in flip.steps() {
            self.swap(*step);
            told.state.flips.fetch_add(1, Ordering::SeqCst);
            for _ in 0..prng.below(2000) {
                spin_loop();
            }
        }
    }

    fn swap(&self, step: Aside) {
        let [link, other, empty] = &self.aside;
        let aside = match step {
            Aside::Link => link,
            Aside::Other => other,
            Aside::Empty => empty,
        };
        let rename = |from, to, flags| renameat_with(&self.top, from, &self.top, to, flags);
        let both = rename(&self.at, aside, RenameFlags::EXCHANGE);
        if both == Err(Errno::NOENT) {
            let only = RenameFlags::NOREPLACE;
            if rename(&self.at, aside, only).is_err() {
                // The operation may have taken both away.
                let _nothing = rename(aside, &self.at, only);
            }
        }
    }
}

/// Takes away whatever is at a path, without following it.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

//! Opening a root as a replica: in earnest, to look only, or as one that was written before and can only be
//! read now.
//!
//! Owns the order of opening: the home is locked, identity is judged, the index is opened and made to fit
//! the verdict, the marker is written, and only then is the replica registered and begun. Invariant:
//! a preview creates nothing anywhere. What each step means is decided in the module it is named for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use instep_core::id::{ReplicaId, ShareId};
use instep_core::policy::Role;
use instep_fs::{Dir, place};
use instep_replica::env::Env;
use instep_replica::{Error, ErrorKind, Result, Step};
use instep_store::Durability;

use super::evidence::{Evidence, Registry, Verdict, known_at};
use super::files::MARKER;
use super::home::Home;
use super::index_file::{self, copy_to_memory, fresh_actor};
use super::marker::{Marker, MembershipKind, Part};
use super::site::Site;
use crate::index::Index;
use crate::recover;
use crate::replica::{LocalReplica, Parts, RootGuard, Settings, fs_error, locked};
use crate::rules::{IgnoreOptions, Rules};
use crate::tree::{Ours, ours};

/// The share that a root is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareChoice {
    /// One that some root is in already.
    Existing(ShareId),
    /// One that begins now.
    New(ShareId),
}

impl ShareChoice {
    fn id(self) -> ShareId {
        match self {
            Self::Existing(id) | Self::New(id) => id,
        }
    }
}

/// How to open a root.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The name in messages.
    pub label: String,
    /// Where it is, as typed.
    pub location: String,
    /// Where it is, without links.
    pub path: PathBuf,
    /// What it may do.
    pub role: Role,
    /// For which share.
    pub share: ShareChoice,
    /// As part of a mirror.
    pub mirror: bool,
    /// Make the directory if it is missing.
    pub create: bool,
    /// Create nothing; keep what is recorded in memory.
    pub preview: bool,
    /// Only read records.
    pub read_only_index: bool,
    /// The user's state directory.
    pub state_dir: PathBuf,
    /// Look again this often instead of watching.
    pub poll: Option<Duration>,
    /// What to leave alone.
    pub ignore: IgnoreOptions,
    /// How long displaced objects are kept.
    pub trash_days: u32,
    /// Keep owner and group.
    pub owner: bool,
    /// Keep extended attributes.
    pub xattr: bool,
    /// What this process is, for whoever finds the root locked: its command line.
    pub command: String,
}

impl LocalReplica {
    /// Opens a root as a replica.
    pub fn open(env: Arc<dyn Env>, options: OpenOptions) -> Result<Self> {
        Self::open_as(env, options, None)
    }

    /// Opens a root, if it is that of a certain replica.
    pub(super) fn open_as(
        env: Arc<dyn Env>,
        options: OpenOptions,
        only: Option<ReplicaId>,
    ) -> Result<Self> {
        if options.create && !options.path.exists() {
            place::create_dir_all(&options.path, 0o755)
                .map_err(|e| fs_error("make the root", e))?;
        }
        let opener = Opener::new(env, options)?;
        if only.is_some_and(|id| !opener.is_of(id)) {
            let attempt = format!("{} is not the root that it was", opener.site.path.display());
            return Err(Error::new(ErrorKind::Gone, attempt));
        }
        if opener.options.preview || opener.options.read_only_index {
            opener.look_only()
        } else {
            opener.in_earnest()
        }
    }

    /// Whether these options name the root of a replica.
    pub(super) fn is_root_of(env: &Arc<dyn Env>, options: &OpenOptions, id: ReplicaId) -> bool {
        Opener::new(Arc::clone(env), options.clone()).is_ok_and(|o| o.is_of(id))
    }
}

/// Who a root turned out to be.
struct Identity {
    id: ReplicaId,
    verdict: Verdict,
    /// It was in the share before.
    joined: bool,
    /// What is to be written down now.
    marker: Marker,
}

/// What a replica is made of once its root is known.
struct Made {
    id: ReplicaId,
    ours: Option<Ours>,
    index: Index,
    new: bool,
    guard: Box<dyn RootGuard>,
    preview: bool,
}

struct Opener {
    env: Arc<dyn Env>,
    options: OpenOptions,
    site: Site,
}

impl Opener {
    fn new(env: Arc<dyn Env>, options: OpenOptions) -> Result<Self> {
        let site = Site::find(&options.path, &options.state_dir)?;
        Ok(Self { env, options, site })
    }

    fn share(&self) -> ShareId {
        self.options.share.id()
    }

    fn is_of(&self, id: ReplicaId) -> bool {
        self.site.is_of(id, self.options.role)
    }

    /// Opens without creating anything: a copy of the index in memory, or the index read-only.
    fn look_only(self) -> Result<LocalReplica> {
        let base = self.site.state(self.options.role);
        let marker = base.as_ref().and_then(Marker::of);
        let id = marker.as_ref().and_then(Marker::id);
        let id = id.unwrap_or_else(|| ReplicaId(self.env.random()));
        let share = self.share();
        let joined = marker.as_ref().is_some_and(|m| m.part(share).is_some());
        let index = match (&base, &marker) {
            (Some(base), Some(marker)) if joined => self.looked_at(base, marker)?,
            _ => Index::open(copy_to_memory(None)?, fresh_actor(self.env.as_ref()))?,
        };
        let made = Made {
            id,
            index,
            ours: base.and_then(|b| Ours::existing(b).ok()),
            new: !joined,
            guard: self.site.guard(id, false),
            preview: true,
        };
        self.assemble(made)
    }

    /// The index of a root that is only looked at: as it is for its records, else in memory as a session would
    /// take it, which is empty and to be learnt again where it is not the newest one of this very root.
    fn looked_at(&self, base: &Dir, marker: &Marker) -> Result<Index> {
        let file = index_file::file_name(self.share(), Some(marker));
        let fresh = fresh_actor(self.env.as_ref());
        let read = index_file::read(base, &file);
        if self.options.read_only_index {
            let store = read?.map_or_else(|| copy_to_memory(None), Ok)?;
            return Index::open(store, fresh);
        }
        let opened = match read {
            Err(e) if e.kind == ErrorKind::Damaged => None,
            read => match Index::open(copy_to_memory(read?)?, fresh) {
                Err(e) if e.kind == ErrorKind::Damaged => None,
                index => Some(index?),
            },
        };
        if let Some(mut index) = opened
            && self.is_trusted(base, marker, &mut index)?
        {
            return Ok(index);
        }
        let mut index = Index::open(copy_to_memory(None)?, fresh)?;
        index.set_rejoining(true)?;
        Ok(index)
    }

    /// Whether an index is the newest one of the very root that it was found in.
    fn is_trusted(&self, base: &Dir, marker: &Marker, index: &mut Index) -> Result<bool> {
        let evidence = self.site.evidence(base)?;
        let Some(registry) = Registry::existing(&self.options.state_dir) else {
            return Ok(*marker.evidence() == evidence);
        };
        let verdict = registry.judge(Some(marker), &evidence, &self.site.path);
        let id = marker
            .id()
            .ok_or_else(|| Error::new(ErrorKind::Other, "read the marker"))?;
        Ok(verdict == Verdict::Same && registry.is_current((id, self.share()), index)?)
    }

    /// Opens for use; a root that is in the share and cannot be changed now is read only.
    fn in_earnest(self) -> Result<LocalReplica> {
        let joined = self.site.joined_inside(self.share(), self.options.role);
        let Some((base, marker)) = joined else {
            let home = self.home()?;
            return self.at(home);
        };
        if !self.site.profile.read_only {
            match self.home() {
                Err(e) if e.kind == ErrorKind::ReadOnly => {}
                home => return self.at(home?),
            }
        }
        self.only_read(&base, &marker)
    }

    fn home(&self) -> Result<Home> {
        Home::take(
            self.env.as_ref(),
            &self.site,
            self.options.role,
            &self.options.command,
        )
    }

    /// Opens a root whose home is ours to write.
    fn at(self, home: Home) -> Result<LocalReplica> {
        let evidence = self.site.evidence(&home.base)?;
        // What could not be changed before kept its state outside, and is still the same replica.
        let own = Marker::of(&home.base);
        let moves_in = home.inside && own.is_none();
        let outside = self.site.kept_outside(self.share()).filter(|_| moves_in);
        let old = own.or_else(|| outside.as_ref().map(|(_, marker)| marker.clone()));
        let registry = Registry::open(&self.options.state_dir)?;
        let who = self.identify(old, &evidence, &registry);
        let mut index = self.fitting_index(&home.base, &who, &registry)?;
        who.marker.write(self.env.as_ref(), &home.base)?;
        self.env.reach(Step::MarkerWritten);
        if let Some((outside, _)) = outside {
            // What stays behind is only looked for where the root has no marker.
            let _stays = outside.remove_file(ours(MARKER));
        }
        registry.register(
            self.env.as_ref(),
            (who.id, self.share()),
            &self.site.path,
            evidence,
            &mut index,
        )?;
        self.begin(home, &who, index)
    }

    /// Who the root is: the replica that its marker names, unless it is a copy or has none.
    fn identify(&self, old: Option<Marker>, evidence: &Evidence, registry: &Registry) -> Identity {
        let verdict = registry.judge(old.as_ref(), evidence, &self.site.path);
        let id = match (&old, verdict) {
            (Some(m), Verdict::Same | Verdict::Moved) => m.id(),
            _ => None,
        };
        let id = id.unwrap_or_else(|| ReplicaId(self.env.random()));
        let share = self.share();
        let kind = if self.options.mirror {
            MembershipKind::Mirror
        } else {
            MembershipKind::Sync
        };
        let part = Part::new(self.options.role, kind, &self.options.label);
        Identity {
            id,
            verdict,
            joined: old.as_ref().is_some_and(|m| m.part(share).is_some()),
            marker: Marker::joining(old, id, evidence, share, part),
        }
    }

    /// The index, if it is the newest of this very root; an empty one otherwise, which rejoins where
    /// there was one before.
    fn fitting_index(&self, base: &Dir, who: &Identity, registry: &Registry) -> Result<Index> {
        let file = index_file::file_name(self.share(), Some(&who.marker));
        if who.verdict != Verdict::Same {
            index_file::set_aside(self.env.as_ref(), base, &file);
        }
        let env = &self.env;
        let (mut index, damaged) = index_file::open(env, base, &file)?;
        let rejoin = damaged || !registry.is_current((who.id, self.share()), &mut index)?;
        if rejoin && !damaged {
            drop(index);
            index_file::set_aside(env.as_ref(), base, &file);
            index = index_file::open(env, base, &file)?.0;
        }
        if rejoin || matches!(who.verdict, Verdict::Copied | Verdict::Moved) {
            index.set_rejoining(true)?;
            // Before the marker says who it is: nothing else would tell, after a death, that it lost its memory.
            index.commit(Durability::Power)?;
        }
        let is_unknown = who.verdict == Verdict::Unknown;
        if is_unknown && !known_at(&self.site.path, &self.options.state_dir).is_empty() {
            // Whoever was here before may have been told that the disk lost something.
            recover::unsure(&mut index)?;
        }
        Ok(index)
    }

    /// Puts the replica together and recovers what a crash left.
    fn begin(mut self, home: Home, who: &Identity, index: Index) -> Result<LocalReplica> {
        let again = OpenOptions {
            create: false,
            ..self.options.clone()
        };
        let Home { base, inside, lock } = home;
        let dirs = Ours::open(base.clone()).map_err(|e| fs_error("open .instep", e))?;
        self.env.reach(Step::PlacesMade);
        let profile = self.site.root.profile(inside.then_some(&dirs.base));
        self.site.profile = profile.map_err(|e| fs_error("examine the root", e))?;
        let made = Made {
            id: who.id,
            ours: inside.then_some(dirs),
            index,
            new: !who.joined || who.verdict == Verdict::Copied,
            guard: self.site.guard(who.id, inside),
            preview: false,
        };
        let mut replica = self.assemble(made)?;
        *locked(&replica.lock) = Some(lock);
        *locked(&replica.again) = Some(again);
        replica.base = Some(base);
        replica.begin()?;
        replica.env.reach(Step::Begun);
        Ok(replica)
    }

    /// Opens a root that cannot be changed and whose state is in it: nothing is written there, and what is
    /// recorded is kept in memory under an actor of its own. When it can be changed it is opened anew, and
    /// finds again what it has.
    fn only_read(self, base: &Dir, marker: &Marker) -> Result<LocalReplica> {
        let lock = Home::outside(self.env.as_ref(), &self.site, &self.options.command)?.lock;
        let registry = Registry::open(&self.options.state_dir)?;
        let evidence = self.site.evidence(base)?;
        let verdict = registry.judge(Some(marker), &evidence, &self.site.path);
        let file = index_file::file_name(self.share(), Some(marker));
        // An index that cannot be read here is as good as lost: the others know better.
        let store = index_file::read(base, &file).ok().flatten();
        let is_lost = store.is_none();
        let id = marker
            .id()
            .ok_or_else(|| Error::new(ErrorKind::Other, "read the marker"))?;
        let fresh = fresh_actor(self.env.as_ref());
        let mut index = Index::open(copy_to_memory(store)?, fresh)?;
        index.renew(fresh)?;
        if is_lost
            || verdict != Verdict::Same
            || !registry.is_current((id, self.share()), &mut index)?
        {
            index.set_rejoining(true)?;
        }
        let again = self.options.clone();
        let made = Made {
            id,
            ours: None,
            index,
            new: false,
            guard: self.site.guard(id, true),
            preview: false,
        };
        let replica = self.assemble(made)?;
        *locked(&replica.lock) = Some(lock);
        *locked(&replica.again) = Some(again);
        Ok(replica)
    }

    fn settings(&self, preview: bool) -> Settings {
        let usual = Settings::default();
        Settings {
            label: self.options.label.clone(),
            location: self.options.location.clone(),
            role: self.options.role,
            poll: self.options.poll.is_some(),
            preview,
            settle_ms: if preview { 0 } else { usual.settle_ms },
            trash_days: u64::from(self.options.trash_days),
            owner: self.options.owner,
            xattrs: self.options.xattr,
            ..usual
        }
    }

    fn assemble(self, made: Made) -> Result<LocalReplica> {
        let parts = Parts {
            id: made.id,
            share: self.share(),
            ours: made.ours,
            index: made.index,
            rules: Rules::new(&self.options.ignore),
            settings: self.settings(made.preview),
            new: made.new,
            guard: made.guard,
            watcher: Box::new(instep_fs::watch::Watcher::new),
            threaded: true,
            root: self.site.root,
            profile: self.site.profile,
        };
        LocalReplica::assemble(self.env, parts)
    }
}

//! Owner, group and extended attributes: looking at them, and giving them to what is put in place.
//!
//! Owns what is read of them and when, and what happens where this machine does not let us set them: the
//! rest of the action is done, the path is listed with the reason, and what counts stays in the index, so
//! that nothing here is ever taken for a user's change that was none. A replica that does not carry a part
//! never reads or sets it. Bits above the permissions, and attributes that guard the system, are never set.

use std::collections::BTreeMap;

use instep_core::attributes::{Account, Attributes, Carried, Owner, Said, Seen, Xattrs, said};
use instep_core::path::{Name, RelPath};
use instep_core::plan::{Action, Code, Goal, Outcome, Problem};
use instep_core::row::Row;
use instep_core::time::Mtime;
use instep_core::version::Kind;
use instep_fs::{Dir, ErrorKind, File, Kind as FsKind, Party, Profile, Stat};
use instep_replica::Replica as _;
use instep_replica::look::Found;

use crate::index::Index;
use crate::replica::{LocalReplica, Settings, locked};

/// How long an answer about an account is believed.
const BELIEVED_NS: u64 = 60_000_000_000;

/// What a replica carries: what the user asked for, where the file system keeps it.
pub(crate) fn carried(settings: &Settings, profile: &Profile, root: &Dir) -> Carried {
    Carried {
        owner: settings.owner && profile.modes,
        xattrs: settings.xattrs && profile.xattrs,
        user: root.acting_user(),
    }
}

/// What a person should know where the file system keeps less than was asked for.
pub(crate) fn note(settings: &Settings, carried: Carried) -> Option<String> {
    let what = match (
        settings.owner && !carried.owner,
        settings.xattrs && !carried.xattrs,
    ) {
        (true, true) => "owners or extended attributes",
        (true, false) => "owners",
        (false, true) => "extended attributes",
        (false, false) => return None,
    };
    Some(format!(
        "this file system keeps no {what}: those of the others pass through unchanged"
    ))
}

/// What this machine said of accounts a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    asked_ns: u64,
    names: BTreeMap<(Party, u32), Option<Account>>,
    ids: BTreeMap<(Party, Box<[u8]>), Option<u32>>,
}

/// Something whose attributes are read or set.
#[derive(Clone, Copy)]
pub(crate) enum Object<'a> {
    /// An open file.
    File(&'a File),
    /// What has a name: a file, a directory, or a link itself.
    Named(&'a Dir, Name<'a>, FsKind),
}

impl Object<'_> {
    /// Its extended attributes.
    pub(crate) fn xattrs(self) -> ReadXattrs {
        match self {
            Self::File(file) => file.xattrs(),
            Self::Named(dir, name, FsKind::File) => dir.open_file(name)?.xattrs(),
            Self::Named(dir, name, FsKind::Dir) => dir.open_dir(name)?.xattrs_self(),
            Self::Named(_, _, FsKind::Link | FsKind::Special) => Ok(Some(Xattrs::default())),
        }
    }

    fn set_xattr(self, name: &[u8], value: Option<&[u8]>) -> instep_fs::Result<()> {
        match self {
            Self::File(file) => file.set_xattr(name, value),
            Self::Named(dir, at, FsKind::File) => dir.open_file(at)?.set_xattr(name, value),
            Self::Named(dir, at, FsKind::Dir) => dir.open_dir(at)?.set_xattr_self(name, value),
            Self::Named(_, _, FsKind::Link | FsKind::Special) => Ok(()),
        }
    }

    fn set_owner(self, user: Option<u32>, group: Option<u32>) -> instep_fs::Result<()> {
        match self {
            Self::File(file) => file.set_owner(user, group),
            Self::Named(dir, name, _) => dir.set_owner(name, user, group),
        }
    }

    /// Sets the modification time.
    pub(crate) fn set_mtime(self, mtime: Mtime) -> instep_fs::Result<()> {
        match self {
            Self::File(file) => file.set_mtime(mtime),
            Self::Named(dir, name, _) => dir.set_mtime(name, mtime),
        }
    }

    /// Sets the mode.
    pub(crate) fn set_mode(self, mode: u32) -> instep_fs::Result<()> {
        match self {
            Self::File(file) => file.set_mode(mode),
            Self::Named(dir, name, _) => dir.set_mode(name, mode),
        }
    }

    fn stat(self) -> instep_fs::Result<Option<Stat>> {
        match self {
            Self::File(file) => file.stat().map(Some),
            Self::Named(dir, name, _) => dir.stat(name),
        }
    }
}

/// Extended attributes as they were read; none where they are more than is carried.
pub(crate) type ReadXattrs = instep_fs::Result<Option<Xattrs>>;

/// Parts that were not told are as they were said to be at the place that an object moved away from, so
/// that a move by whoever does not carry them loses none.
pub(crate) fn inherit(told: &mut Option<Box<Attributes>>, was: &Row, kind: Kind) {
    let before = said(&was.entry, kind);
    if before == Said::default() {
        return;
    }
    let all = told.get_or_insert_default();
    all.owner = all
        .owner
        .take()
        .or_else(|| before.owner.map(|(_, o)| o.clone()));
    all.xattrs = all
        .xattrs
        .take()
        .or_else(|| before.xattrs.map(|(_, x)| x.clone()));
}

/// Whether what was found of attributes is what was last seen of them; true where nothing is looked at.
pub(crate) fn is_alike(row: &Row, found: &Found) -> bool {
    let Found::Present { attributes, .. } = found else {
        return true;
    };
    let had = row.seen.as_deref().map(|s| &s.attributes);
    had.is_none() || attributes.is_none() || had == attributes.as_deref()
}

/// What is known to be there, with attributes as they are now.
fn as_known(row: &Row, stat: &Stat, attributes: Option<Box<Attributes>>) -> Option<Found> {
    let version = row.present()?;
    let target = version.target.clone();
    let mut found = crate::scan::present(version.kind, version.content, stat, target, false);
    if let Found::Present {
        attributes: told, ..
    } = &mut found
    {
        *told = attributes;
    }
    Some(found)
}

impl LocalReplica {
    /// What is carried here.
    pub(crate) fn carried(&self) -> Carried {
        self.capabilities().carried
    }

    /// What is carried for objects of this kind.
    fn carried_by(&self, kind: FsKind) -> Carried {
        let carried = self.carried();
        Carried {
            // The kernel keeps none on links.
            xattrs: carried.xattrs && kind != FsKind::Link,
            ..carried
        }
    }

    /// What a directory's digest says besides its names, so that everything is looked at once after another
    /// part is carried.
    pub(crate) fn stamp(&self, rules: u64) -> u64 {
        let carried = self.carried();
        let parts = u64::from(carried.owner) | u64::from(carried.xattrs) << 1;
        rules ^ parts.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Takes parts that are not carried here out of what was seen.
    pub(crate) fn forget_uncarried(&self, row: &mut Row) {
        if let Some(seen) = row.seen.take() {
            let Seen {
                attributes,
                refused_to,
            } = *seen;
            let kept = self.carried().only(attributes);
            row.seen = kept.map(|attributes| {
                Box::new(Seen {
                    attributes,
                    refused_to,
                })
            });
        }
    }

    fn account(&self, party: Party, id: u32) -> Option<Account> {
        let ask = || {
            let name = self.root.account_name(party, id).unwrap_or_default();
            Account::new(id, &name).or_else(|| Account::new(id, b""))
        };
        let mut accounts = self.fresh_accounts();
        accounts
            .names
            .entry((party, id))
            .or_insert_with(ask)
            .clone()
    }

    /// The number of an account here: by its name where that exists here, else the number that it had.
    fn number(&self, party: Party, account: &Account) -> u32 {
        if account.name().is_empty() {
            return account.id();
        }
        let ask = || self.root.account_id(party, account.name());
        let mut accounts = self.fresh_accounts();
        let known = accounts.ids.entry((party, account.name().into()));
        (*known.or_insert_with(ask)).unwrap_or(account.id())
    }

    fn fresh_accounts(&self) -> std::sync::MutexGuard<'_, Accounts> {
        let mut accounts = locked(&self.accounts);
        let now = self.env.monotonic_ns();
        if now.saturating_sub(accounts.asked_ns) > BELIEVED_NS {
            *accounts = Accounts {
                asked_ns: now,
                ..Accounts::default()
            };
        }
        accounts
    }

    fn is_owned_by(&self, stat: &Stat, owner: &Owner) -> bool {
        stat.uid == self.number(Party::User, &owner.user)
            && stat.gid == self.number(Party::Group, &owner.group)
    }

    /// The owner of what is there. Where it comes to the same here as what was seen or said before, it is
    /// called by that name and number, so that machines with other accounts agree.
    fn owner(&self, stat: &Stat, before: &[Option<&Owner>]) -> Option<Owner> {
        let same = before
            .iter()
            .flatten()
            .find(|owner| self.is_owned_by(stat, owner));
        if let Some(same) = same {
            return Some((*same).clone());
        }
        Some(Owner {
            user: self.account(Party::User, stat.uid)?,
            group: self.account(Party::Group, stat.gid)?,
        })
    }

    /// The attributes of what is there, as far as they are carried and can be read; the rest is a problem.
    fn read_attributes(
        &self,
        path: &RelPath,
        xattrs: impl FnOnce() -> ReadXattrs,
        stat: &Stat,
        row: Option<&Row>,
        problems: &mut Vec<Problem>,
    ) -> Option<Box<Attributes>> {
        let carried = self.carried_by(stat.kind);
        let mut here = Attributes::default();
        if carried.owner {
            let seen = row.and_then(|r| r.seen.as_deref());
            let seen = seen.and_then(|s| s.attributes.owner.as_ref());
            let version = row.and_then(Row::present);
            let said = row.zip(version).map(|(r, v)| said(&r.entry, v.kind));
            let said = said.and_then(|s| s.owner).map(|(_, owner)| owner);
            here.owner = self.owner(stat, &[seen, said]);
        }
        if carried.xattrs {
            let mut problem = |code, detail: String| {
                problems.push(Problem {
                    path: path.clone(),
                    code,
                    detail,
                });
            };
            match xattrs() {
                Ok(Some(xattrs)) => here.xattrs = Some(xattrs),
                Ok(None) => problem(
                    Code::TooManyAttributes,
                    "its extended attributes are more than 64 KiB and are left out".into(),
                ),
                // Gone or replaced meanwhile: the next look tells.
                Err(e) if matches!(e.kind(), ErrorKind::Absent | ErrorKind::OtherKind) => {}
                Err(e) => problem(Code::Unreadable, e.to_string()),
            }
        }
        carried.only(here).map(Box::new)
    }

    /// A finding with attributes, where they are carried; what was none may become one.
    pub(crate) fn told(
        &self,
        path: &RelPath,
        found: Option<Found>,
        xattrs: impl FnOnce() -> ReadXattrs,
        stat: &Stat,
        row: Option<&Row>,
        problems: &mut Vec<Problem>,
    ) -> Option<Found> {
        let carried = self.carried_by(stat.kind);
        let had = row.and_then(|r| r.seen.as_deref());
        if !carried.any() {
            return found;
        }
        if !matches!(found, Some(Found::Present { .. })) && row.and_then(Row::present).is_none() {
            return found;
        }
        let here = self.read_attributes(path, xattrs, stat, row, problems);
        let refused_to = had.and_then(|seen| seen.refused_to);
        if let Some(user) = refused_to.filter(|user| *user == carried.user) {
            problems.push(not_kept(path, &format!("refused to user id {user}")));
        }
        match (found, row) {
            (Some(mut found @ Found::Present { .. }), _) => {
                if let Found::Present { attributes, .. } = &mut found {
                    *attributes = here;
                }
                Some(found)
            }
            (_, Some(row))
                if had.map(|s| &s.attributes) != here.as_deref()
                    || refused_to.is_some_and(|user| user != carried.user) =>
            {
                as_known(row, stat, here)
            }
            (found, _) => found,
        }
    }

    /// Something that looks as the index has it: its attributes may not have been looked at yet, or may now
    /// be permitted.
    pub(crate) fn told_again(
        &self,
        path: &RelPath,
        dir: &Dir,
        stat: &Stat,
        row: Option<&Row>,
        problems: &mut Vec<Problem>,
    ) -> Option<Found> {
        let carried = self.carried_by(stat.kind);
        let seen = row?.seen.as_deref();
        let is_known = seen.is_some_and(|s| {
            s.refused_to.is_none()
                && (s.attributes.owner.is_some() || !carried.owner)
                && (s.attributes.xattrs.is_some() || !carried.xattrs)
        });
        if !carried.any() || is_known {
            return None;
        }
        let object = Object::Named(dir, path.name()?, stat.kind);
        self.told(path, None, || object.xattrs(), stat, row, problems)
    }

    /// Gives an object the attributes that count for what an action shows, as far as they are carried here
    /// and may be set; what may not becomes a problem of the path. Returns what is there then.
    pub(crate) fn give_attributes(
        &self,
        action: &Action,
        object: Object<'_>,
    ) -> instep_fs::Result<Option<Box<Seen>>> {
        if !self.carried().any() {
            return Ok(None);
        }
        let (Some(version), Some(stat)) = (action.entry.get_shown(action.shown), object.stat()?)
        else {
            return Ok(None);
        };
        let carried = self.carried_by(stat.kind);
        let want = said(&action.entry, version.kind);
        let mut refused = Vec::new();
        let mut here = Attributes::default();
        // Attributes first: they need the right to write, which goes away with the file.
        if carried.xattrs {
            let (xattrs, error) =
                give_xattrs(object, &stat, want.xattrs.map(|(_, xattrs)| xattrs))?;
            here.xattrs = xattrs;
            refused.extend(error.map(|e| e.to_string()));
        }
        if carried.owner {
            let want = want.owner.map(|(_, owner)| owner);
            let error = want.and_then(|o| self.give_owner(object, &stat, o));
            refused.extend(error.map(|e| e.to_string()));
            let now = object.stat()?;
            here.owner = now.and_then(|now| self.owner(&now, &[want]));
        }
        let is_refused = !refused.is_empty();
        if is_refused {
            self.note(not_kept(&action.path, &refused.join("; ")));
            self.look_into_again(&action.path);
        }
        Ok(carried.only(here).map(|attributes| {
            Box::new(Seen {
                attributes,
                refused_to: is_refused.then_some(carried.user),
            })
        }))
    }

    /// The attributes of something that was brought just before a crash are looked at anew: what the crash
    /// took of them is given again.
    pub(crate) fn look_at_attributes(&self, index: &mut Index, path: &RelPath) {
        if let Some(dir) = path.parent().filter(|_| self.carried().any()) {
            index.set_digest(&dir, None);
        }
    }

    /// As [`Self::give_attributes`], to what has a name already and looks like `stat`. Another owner takes bits
    /// above the permissions away, which are not given back: `stat` has the mode as it is then.
    pub(crate) fn give_in_place(
        &self,
        action: &Action,
        object: Object<'_>,
        (dir, name): (&Dir, Name<'_>),
        stat: &mut Stat,
    ) -> instep_fs::Result<Result<Option<Box<Seen>>, Outcome>> {
        let seen = self.give_attributes(action, object)?;
        if seen.is_some() {
            match dir.stat(name)?.filter(|now| now.ino == stat.ino) {
                Some(now) => stat.mode = now.mode,
                None => return Ok(Err(Outcome::Superseded)),
            }
        }
        Ok(Ok(seen))
    }

    /// Whether an action may leave some attributes changed and others not, if it is cut off.
    pub(crate) fn changes_attributes(&self, action: &Action) -> bool {
        matches!(action.goal, Goal::Metadata { .. }) && self.carried().any()
    }

    /// After a change of attributes that was cut off: which of them are there is neither what was nor what was
    /// to be, and no user's doing.
    pub(crate) fn doubt_attributes(&self, path: &RelPath) {
        if !self.carried().any() {
            return;
        }
        let mut index = self.index();
        let mut doubt = || {
            let Some(row) = index.get(path)? else {
                return Ok(());
            };
            let doubted = Row {
                seen: None,
                ..row.clone()
            };
            self.look_at_attributes(&mut index, path);
            index.put(path, Some(&row), &doubted)
        };
        // An index that cannot be written stops the replica at its next use.
        let _stops: instep_replica::Result<()> = doubt();
    }

    /// The directory of a path that has a problem is not passed over by the next look.
    fn look_into_again(&self, path: &RelPath) {
        if let Some(dir) = path.parent() {
            self.index().set_digest(&dir, None);
        }
    }

    /// Sets what differs of user and group, both if possible, else the group alone.
    fn give_owner(
        &self,
        object: Object<'_>,
        stat: &Stat,
        owner: &Owner,
    ) -> Option<instep_fs::Error> {
        let user = self.number(Party::User, &owner.user);
        let group = self.number(Party::Group, &owner.group);
        let user = (user != stat.uid).then_some(user);
        let group = (group != stat.gid).then_some(group);
        if (user, group) == (None, None) {
            return None;
        }
        let refused = object.set_owner(user, group).err()?;
        if user.is_some() && group.is_some() {
            // Somebody who may not give files away may still share them with a group.
            let _refused_too = object.set_owner(None, group);
        }
        Some(refused)
    }
}

fn not_kept(path: &RelPath, why: &str) -> Problem {
    Problem {
        path: path.clone(),
        code: Code::NotKept,
        detail: format!("owner or extended attributes cannot be kept here: {why}"),
    }
}

/// Makes the extended attributes what they should be; returns what they are, and why they are not.
fn give_xattrs(
    object: Object<'_>,
    stat: &Stat,
    want: Option<&Xattrs>,
) -> instep_fs::Result<(Option<Xattrs>, Option<instep_fs::Error>)> {
    let here = object.xattrs()?;
    let Some(want) = want.filter(|want| here.as_ref() != Some(*want)) else {
        return Ok((here, None));
    };
    let set = || -> instep_fs::Result<()> {
        let have = here.iter().flat_map(Xattrs::iter);
        for (name, _) in have.filter(|(n, _)| want.get(n).is_none()) {
            object.set_xattr(name, None)?;
        }
        let differs =
            |(n, v): &(&[u8], &[u8])| here.as_ref().and_then(|here| here.get(n)) != Some(*v);
        want.iter()
            .filter(differs)
            .try_for_each(|(n, v)| object.set_xattr(n, Some(v)))
    };
    let mut done = set();
    if done.as_ref().is_err_and(|e| e.kind() == ErrorKind::Denied) && stat.mode & 0o200 == 0 {
        // Also its owner may not, while it is read-only.
        if object.set_mode(stat.mode & 0o777 | 0o200).is_ok() {
            done = set();
            object.set_mode(stat.mode)?;
        }
    }
    match done {
        Ok(()) => Ok((Some(want.clone()), None)),
        Err(e) if e.kind() == ErrorKind::Crashed => Err(e),
        Err(e) => Ok((object.xattrs()?, Some(e))),
    }
}

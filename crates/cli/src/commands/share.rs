//! `share`: what a hub keeps, and who may take part in it.

use std::path::{Path, PathBuf};

use instep_core::id::ShareId;
use serde_json::json;

use super::{Context, join};
use crate::args::{AtHub, Invite, Session, ShareCommand};
use crate::code_file::CodeFile;
use crate::connect;
use crate::error::{Exit, Failure};
use crate::far::hubs::{self, Address, Device};
use crate::hub::desk;
use crate::hub::order::{Answer, MemberLine, Order, ShareLine};
use crate::hub::rights::Right;
use crate::ui::table::Table;
use crate::{places, quantity};

/// Carries it out.
pub(crate) fn run(what: ShareCommand, context: &Context) -> Result<Exit, Failure> {
    match what {
        ShareCommand::Add {
            share,
            folder,
            at,
            entry,
            session,
        } => {
            let hub = at.hub.map_or_else(|| Device::own().only_hub(), Ok)?;
            if !Device::own().knows(&hub)? {
                join::enter(&hub, &entry, context)?;
            }
            add(&hub, &share, &folder, session, context)
        }
        ShareCommand::Invite(wanted) => invite(wanted, context),
        ShareCommand::Ls { at } => {
            let hub = Asked::meant(at)?;
            let Answer::Shares { shares } = hub.ask(Order::Shares)? else {
                return Err(hub.odd());
            };
            list_shares(&shares, context);
            Ok(Exit::Done)
        }
        ShareCommand::Members { share, at } => {
            let hub = Asked::meant(at)?;
            let Answer::Members { members } = hub.ask(Order::Members { share })? else {
                return Err(hub.odd());
            };
            list_members(&members, context);
            Ok(Exit::Done)
        }
        ShareCommand::Set {
            share,
            member,
            role,
            at,
        } => change(
            at,
            Order::Set {
                share,
                member,
                right: Some(role),
            },
        ),
        ShareCommand::Evict { share, member, at } => change(
            at,
            Order::Set {
                share,
                member,
                right: None,
            },
        ),
        ShareCommand::Verify { share, at } => verify(&Asked::meant(at)?, share, context),
        ShareCommand::Revoke { member, at } => change(at, Order::Revoke { member }),
        ShareCommand::Rm { share, at } => change(at, Order::Remove { share }),
    }
}

/// Has somebody be invited, and hands over the code.
fn invite(wanted: Invite, context: &Context) -> Result<Exit, Failure> {
    let hub = Asked::meant(wanted.at)?;
    let order = Order::Invite {
        share: wanted.share,
        right: if wanted.admin {
            Right::Admin
        } else {
            wanted.role
        },
        uses: wanted.uses,
        seconds: wanted.expires.as_secs(),
    };
    let file = wanted.token_file.as_deref();
    let file = file.map(CodeFile::create).transpose()?;
    let code = match hub.ask(order) {
        Ok(Answer::Invited { code }) => code,
        answer => {
            file.into_iter().for_each(CodeFile::remove);
            return Err(answer.err().unwrap_or_else(|| hub.odd()));
        }
    };
    let output = &context.output;
    match file {
        Some(file) => file.write(&code)?,
        None if output.style.json => output.json("invitation", json!({ "code": code })),
        None => {
            let held = u64::try_from(wanted.expires.as_nanos()).unwrap_or(u64::MAX);
            let uses = quantity::counted(u64::from(wanted.uses), "use");
            let host = hub.host();
            output.note(&format!("On the other computer, run:   instep join {host}"));
            output.line(&code);
            output.note(&format!("({uses}, {})", quantity::span(held)));
        }
    }
    Ok(Exit::Done)
}

/// A hub that is asked something.
enum Asked {
    Far(Address),
    /// The one that runs with this directory.
    Here(PathBuf),
}

impl Asked {
    /// The one that was named; else the one on this machine; else the only one that this device knows.
    fn meant(at: AtHub) -> Result<Self, Failure> {
        if let Some(data) = at.data {
            return Ok(Self::Here(data));
        }
        if let Some(hub) = at.hub {
            return Ok(Self::Far(hub));
        }
        let usual = places::hub_dir();
        if desk::is_open(&usual) {
            return Ok(Self::Here(usual));
        }
        Device::own().only_hub().map(Self::Far)
    }

    fn ask(&self, order: Order) -> Result<Answer, Failure> {
        match self {
            Self::Far(hub) => Device::own().order(hub, order),
            Self::Here(data) => desk::ask(data, order),
        }
    }

    /// What somebody else would call it.
    fn host(&self) -> String {
        match self {
            Self::Far(hub) => hub.to_string(),
            Self::Here(_) => instep_fs::place::machine_name(),
        }
    }

    /// An answer to something else than was asked.
    fn odd(&self) -> Failure {
        match self {
            Self::Far(hub) => hubs::odd(&hub.to_string()),
            Self::Here(data) => hubs::odd(&data.display().to_string()),
        }
    }
}

fn change(at: AtHub, order: Order) -> Result<Exit, Failure> {
    let hub = Asked::meant(at)?;
    match hub.ask(order)? {
        Answer::Done => Ok(Exit::Done),
        _ => Err(hub.odd()),
    }
}

/// Has the hub keep a folder. One that is in a share already brings that along.
fn add(
    hub: &Address,
    share: &str,
    folder: &Path,
    session: Session,
    context: &Context,
) -> Result<Exit, Failure> {
    let seen = connect::inspect(folder)?;
    let own = seen.memberships.iter().find(|m| !m.mirror).map(|m| m.share);
    let id = match own {
        Some(id) => id,
        None => ShareId(Context::env(None)?.random()),
    };
    let order = Order::Add {
        share: share.to_owned(),
        id: id.to_string(),
    };
    Device::own().order(hub, order)?;
    join::follow(folder, hub, share, session, context)
}

fn list_shares(shares: &[ShareLine], context: &Context) {
    if context.output.style.json {
        context.output.json("shares", json!(shares));
        return;
    }
    let mut table = Table::new(&["SHARE", "ROLE", "CONNECTED"]);
    for share in shares {
        table.row([
            share.name.as_str(),
            share.right.word(),
            &share.connected.join(" "),
        ]);
    }
    if table.is_empty() {
        context.output.note("no shares");
    } else {
        context.output.result(&table.render());
    }
}

fn list_members(members: &[MemberLine], context: &Context) {
    if context.output.style.json {
        context.output.json("members", json!(members));
        return;
    }
    let mut table = Table::new(&["MEMBER", "DEVICE", "ROLES", "CONNECTED"]);
    for member in members {
        let mut roles: Vec<String> = member
            .rights
            .iter()
            .map(|(s, r)| format!("{s}:{}", r.word()))
            .collect();
        if member.admin {
            roles.insert(0, "hub:admin".to_owned());
        }
        let connected = if member.connected { "yes" } else { "no" };
        let device: String = member.device.chars().take(15).collect();
        table.row([member.name.as_str(), &device, &roles.join(" "), connected]);
    }
    context.output.result(&table.render());
}

fn verify(hub: &Asked, share: String, context: &Context) -> Result<Exit, Failure> {
    let Answer::Verified {
        contents,
        bytes,
        flaws,
        more,
    } = hub.ask(Order::Verify { share })?
    else {
        return Err(hub.odd());
    };
    let output = &context.output;
    if output.style.json {
        output.json(
            "verified",
            json!({ "contents": contents, "bytes": bytes, "flaws": flaws, "more": more }),
        );
    } else {
        for flaw in &flaws {
            let path = flaw.path.as_deref().unwrap_or("(no path)");
            output.line(&format!("damaged  {path}  {}", flaw.what));
        }
        if more > 0 {
            output.line(&format!("and {} more", quantity::count(more)));
        }
        let read = quantity::counted(contents, "content");
        output.line(&format!("{read}, {} read", quantity::bytes(bytes)));
    }
    Ok(if flaws.is_empty() {
        Exit::Done
    } else {
        Exit::Damage
    })
}

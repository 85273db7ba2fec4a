//! `share`: what a hub keeps, and who may take part in it.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use instep_core::id::ShareId;
use serde_json::json;

use super::{Context, join};
use crate::args::{AtHub, Session, ShareCommand};
use crate::connect;
use crate::error::{Exit, Failure};
use crate::far::hubs::{self, Address};
use crate::hub::order::{Answer, MemberLine, Order, ShareLine};
use crate::hub::rights::Right;
use crate::quantity;
use crate::ui::table::Table;

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
            let hub = meant(at)?;
            if !hubs::knows(&hub)? {
                join::enter(&hub, &entry, context)?;
            }
            add(&hub, &share, &folder, session, context)
        }
        ShareCommand::Invite {
            share,
            role,
            admin,
            uses,
            expires,
            token_file,
            at,
        } => {
            let hub = meant(at)?;
            let order = Order::Invite {
                share: share.clone(),
                right: if admin { Right::Admin } else { role },
                uses,
                seconds: expires.as_secs(),
            };
            let Answer::Invited { code } = hubs::order(&hub, order)? else {
                return Err(hubs::odd(&hub.to_string()));
            };
            match token_file {
                Some(file) => write_code(&file, &code)?,
                None if context.output.style.json => {
                    context.output.json("invitation", json!({ "code": code }))
                }
                None => {
                    let held =
                        quantity::span(u64::try_from(expires.as_nanos()).unwrap_or(u64::MAX));
                    context
                        .output
                        .note(&format!("On the other computer, run:   instep join {hub}"));
                    context.output.line(&code);
                    context.output.note(&format!(
                        "({}, {held})",
                        quantity::counted(u64::from(uses), "use")
                    ));
                }
            }
            Ok(Exit::Done)
        }
        ShareCommand::Ls { at } => {
            let hub = meant(at)?;
            let Answer::Shares { shares } = hubs::order(&hub, Order::Shares)? else {
                return Err(hubs::odd(&hub.to_string()));
            };
            list_shares(&shares, context);
            Ok(Exit::Done)
        }
        ShareCommand::Members { share, at } => {
            let hub = meant(at)?;
            let Answer::Members { members } = hubs::order(&hub, Order::Members { share })? else {
                return Err(hubs::odd(&hub.to_string()));
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
        ShareCommand::Revoke { member, at } => change(at, Order::Revoke { member }),
        ShareCommand::Rm { share, at } => change(at, Order::Remove { share }),
    }
}

fn meant(at: AtHub) -> Result<Address, Failure> {
    at.hub.map_or_else(hubs::the_only, Ok)
}

fn change(at: AtHub, order: Order) -> Result<Exit, Failure> {
    let hub = meant(at)?;
    match hubs::order(&hub, order)? {
        Answer::Done => Ok(Exit::Done),
        _ => Err(hubs::odd(&hub.to_string())),
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
    hubs::order(hub, order)?;
    join::follow(folder, hub, share, session, context)
}

fn write_code(file: &Path, code: &str) -> Result<(), Failure> {
    let open = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    let written = open.and_then(|mut file| writeln!(file, "{code}"));
    written.map_err(|e| {
        Failure::new(
            1077,
            Exit::Failed,
            format!("the code cannot be written to {}", file.display()),
        )
        .why(e.to_string())
        .effect("the invitation stands, and nobody knows its code; it expires by itself")
        .remedy("name a file that does not exist yet")
    })
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

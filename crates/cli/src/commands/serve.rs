//! `serve`: runs a hub until it is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Context;
use crate::args;
use crate::error::{Exit, Failure};
use crate::hub::data::Data;
use crate::hub::reception::{Hub, World};
use crate::hub::rights::Grant;
use crate::places;
use crate::signals::Taken;

/// How long the first code holds.
const FIRST_CODE: Duration = Duration::from_mins(10);

/// Carries it out.
pub(crate) fn run(args: &args::Serve, context: &Context) -> Result<Exit, Failure> {
    let signals = Taken::begin()?;
    let data = Data::open(&args.data.clone().unwrap_or_else(places::hub_dir))?;
    let output = context.output.clone();
    let world = World {
        env: Context::env(None)?,
        settings: context.settings(&args::Session::default()),
        keep_trash: context.keep_trash(),
        say: Box::new(move |line| output.line(line)),
    };
    let hub = Hub::start(data, args.listen, world)?;
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
    hub.run(|| over.load(Ordering::SeqCst))?;
    Ok(caught.exit().unwrap_or(Exit::Done))
}

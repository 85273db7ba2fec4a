//! `explain`: prints the page of a code, or the list of all codes.

use serde_json::json;

use crate::args::Explain;
use crate::error::{Exit, Failure};
use crate::explain::{PAGES, page};
use crate::ui::Output;
use crate::ui::table::Table;

/// Carries it out.
pub(crate) fn run(args: &Explain, output: &Output) -> Result<Exit, Failure> {
    let Some(code) = &args.code else {
        let mut table = Table::new(&["CODE", "MEANING"]);
        for page in PAGES {
            table.row([format!("E{:04}", page.code), page.title().to_owned()]);
        }
        if output.style.json {
            let all: Vec<_> = PAGES
                .iter()
                .map(|p| json!({ "code": format!("E{:04}", p.code), "title": p.title() }))
                .collect();
            output.json("codes", json!(all));
        } else {
            output.result(&table.render());
        }
        return Ok(Exit::Done);
    };
    let page = page(code)?;
    if output.style.json {
        let body = json!({ "code": format!("E{:04}", page.code), "title": page.title(), "text": page.text });
        output.json("code", body);
    } else {
        output.result(page.text);
    }
    Ok(Exit::Done)
}

//! What people type: unseen at a terminal; a line of standard input where there is none.

use std::io::{IsTerminal, stdin};

use super::Failure;

/// Asks for a password twice, or reads one line when standard input is no terminal.
pub(super) fn ask_new_password() -> Result<String, Failure> {
    if !stdin().is_terminal() {
        return Ok(read_line()?.unwrap_or_default());
    }
    let password = rpassword::prompt_password("New password: ")?;
    if rpassword::prompt_password("Again: ")? != password {
        return Err(Failure::new("the two passwords differ; nothing was changed"));
    }
    Ok(password)
}

/// Asks what answers `prompt`, or reads one line when standard input is no terminal; `None` when
/// there is none.
pub(super) fn ask(prompt: &str) -> Result<Option<String>, Failure> {
    if !stdin().is_terminal() {
        return Ok(read_line()?);
    }
    Ok(Some(rpassword::prompt_password(prompt)?))
}

/// The next line of standard input without its end; `None` when there is none.
fn read_line() -> std::io::Result<Option<String>> {
    let mut line = String::new();
    let length = stdin().read_line(&mut line)?;
    Ok((length > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
}

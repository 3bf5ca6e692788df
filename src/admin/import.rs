//! Users from a CSV file.
//!
//! Reading is separate from adding: the file is read where the administrator sits, line by line, and
//! the rows go to the node in batches. Adding a row that exists already changes nothing, so an
//! interrupted import is resumed by running it again.

use std::io::Read;

use serde::{Deserialize, Serialize};
use watchword_core::factor::Algorithm;
use watchword_core::{Applied, Command, Refusal};

use super::{Admin, AdminError, DeviceKind, DeviceSpec, UserSpec};

/// Rows that one request may carry.
pub const BATCH_ROWS_MAX: usize = 1_000;

/// The columns, all but the first optional, in any order.
pub(super) const COLUMNS: [&str; 14] = [
    "username",
    "full_name",
    "mail",
    "groups",
    "password",
    "password_hash",
    "disabled",
    "totp_key",
    "hotp_key",
    "algorithm",
    "digits",
    "period_seconds",
    "counter",
    "label",
];

/// One row: a user and at most one device.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRow {
    /// The user.
    pub user: UserSpec,
    /// A device to enrol.
    pub device: Option<DeviceSpec>,
}

/// What became of one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowOutcome {
    /// The user was added.
    Added,
    /// There is a user of this name; nothing was changed.
    Exists,
    /// The row was refused; nothing was changed.
    Refused(String),
}

/// Why a line of the file is no row, or the file no CSV.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The header lacks `username`.
    #[error("the first line must name the columns, username among them")]
    NoUsernameColumn,
    /// The header names a column that means nothing.
    #[error("unknown column {0:?}; known are {known}", known = COLUMNS.join(", "))]
    UnknownColumn(String),
    /// The header names a column twice.
    #[error("column {0:?} appears twice")]
    ColumnTwice(String),
    /// The line is not CSV, not UTF-8, or has too many or too few fields.
    #[error("{0}")]
    Csv(String),
    /// A field does not fit.
    #[error("{column} must be {expected}, not {value:?}")]
    Field {
        /// The column.
        column: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What it holds.
        value: String,
    },
    /// Two keys in one row.
    #[error("give totp_key or hotp_key, not both")]
    TwoKeys,
}

/// The rows of a CSV file (RFC 4180) with their line numbers, the header being line 1.
///
/// # Errors
/// When the header is unusable. A bad row is an item of its own and ends nothing.
pub fn read_rows<R: Read>(
    file: R,
) -> Result<impl Iterator<Item = (u64, Result<ImportRow, RowError>)>, RowError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
    let header = reader.headers().map_err(|error| RowError::Csv(one_line(&error)))?;
    let mut columns = Vec::with_capacity(header.len());
    for name in header {
        // Spreadsheets put a byte order mark in front of the first column.
        let name = name.trim_start_matches('\u{feff}').to_ascii_lowercase();
        let column = COLUMNS.into_iter().find(|known| *known == name);
        let column = column.ok_or(RowError::UnknownColumn(name))?;
        if columns.contains(&column) {
            return Err(RowError::ColumnTwice(column.to_owned()));
        }
        columns.push(column);
    }
    if !columns.contains(&"username") {
        return Err(RowError::NoUsernameColumn);
    }
    Ok(reader.into_records().map(move |record| match record {
        Ok(record) => {
            let line = record.position().map_or(0, csv::Position::line);
            (line, parse_row(&columns, &record))
        }
        Err(error) => {
            let line = error.position().map_or(0, csv::Position::line);
            (line, Err(RowError::Csv(one_line(&error))))
        }
    }))
}

fn one_line(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} fields where the header has {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "not UTF-8".to_owned(),
        csv::ErrorKind::Io(error) => format!("cannot read: {error}"),
        _ => error.to_string().replace('\n', " "),
    }
}

fn parse_row(columns: &[&'static str], record: &csv::StringRecord) -> Result<ImportRow, RowError> {
    let field = |column: &str| {
        let position = columns.iter().position(|known| *known == column)?;
        record.get(position).filter(|value| !value.is_empty())
    };
    let text = |column| field(column).unwrap_or_default().to_owned();
    let user = UserSpec {
        username: text("username"),
        full_name: text("full_name"),
        mail: text("mail"),
        groups: text("groups")
            .split(';')
            .map(|group| group.trim().to_owned())
            .filter(|group| !group.is_empty())
            .collect(),
        password: field("password").map(str::to_owned),
        password_hash: field("password_hash").map(str::to_owned),
        disabled: match field("disabled") {
            None | Some("no" | "false" | "0") => false,
            Some("yes" | "true" | "1") => true,
            Some(value) => return Err(bad("disabled", "yes or no", value)),
        },
    };
    let (kind, key) = match (field("totp_key"), field("hotp_key")) {
        (None, None) => return Ok(ImportRow { user, device: None }),
        (Some(key), None) => (DeviceKind::Totp, key),
        (None, Some(key)) => (DeviceKind::Hotp, key),
        (Some(_), Some(_)) => return Err(RowError::TwoKeys),
    };
    let mut device = DeviceSpec::new(kind);
    device.key = Some(key.to_owned());
    device.label = text("label");
    if let Some(value) = field("algorithm") {
        device.algorithm = match value.to_ascii_lowercase().replace('-', "").as_str() {
            "sha1" => Algorithm::Sha1,
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(bad("algorithm", "sha1, sha256 or sha512", value)),
        };
    }
    if let Some(value) = field("digits") {
        device.digits = value.parse().map_err(|_| bad("digits", "6, 7 or 8", value))?;
    }
    if let Some(value) = field("period_seconds") {
        device.period_seconds =
            value.parse().map_err(|_| bad("period_seconds", "30 or 60", value))?;
    }
    if let Some(value) = field("counter") {
        device.counter = value.parse().map_err(|_| bad("counter", "a whole number", value))?;
    }
    Ok(ImportRow { user, device: Some(device) })
}

fn bad(column: &'static str, expected: &'static str, value: &str) -> RowError {
    RowError::Field { column, expected, value: value.chars().take(40).collect() }
}

impl Admin {
    /// Adds the users of `rows`, in order, each on its own; answers in order.
    ///
    /// # Errors
    /// When the log does not take them, or their fate is unknown: run the import again.
    pub async fn import_users(&self, rows: Vec<ImportRow>) -> Result<Vec<RowOutcome>, AdminError> {
        if rows.len() > BATCH_ROWS_MAX {
            let reason = format!("at most {BATCH_ROWS_MAX} rows at once");
            return Err(AdminError::Invalid(reason));
        }
        let state = self.state().await?;
        let mut outcomes = Vec::with_capacity(rows.len());
        let mut commands = Vec::with_capacity(rows.len());
        for row in rows {
            match self.prepare(&state, row).await {
                Ok(command) => {
                    commands.push(command);
                    outcomes.push(None);
                }
                Err(AdminError::Refused(Refusal::UserExists(_))) => {
                    outcomes.push(Some(RowOutcome::Exists));
                }
                Err(
                    error @ (AdminError::Invalid(_) | AdminError::Name(_) | AdminError::Hash(_)),
                ) => outcomes.push(Some(RowOutcome::Refused(error.to_string()))),
                Err(error) => return Err(error),
            }
        }
        let mut applied = self.cluster.propose_many(commands).await?.into_iter();
        outcomes
            .into_iter()
            .map(|outcome| match outcome {
                Some(outcome) => Ok(outcome),
                None => match applied.next() {
                    Some(Applied::Done) => Ok(RowOutcome::Added),
                    Some(Applied::Refused(Refusal::UserExists(_))) => Ok(RowOutcome::Exists),
                    Some(Applied::Refused(refusal)) => Ok(RowOutcome::Refused(refusal.to_string())),
                    _ => Err(AdminError::UnexpectedResult),
                },
            })
            .collect()
    }

    async fn prepare(
        &self,
        state: &watchword_core::State,
        row: ImportRow,
    ) -> Result<Command, AdminError> {
        let name = watchword_core::name::UserName::canonical(&row.user.username)?;
        // Looked up first, so that running an import again does not hash every password anew.
        if state.user_id(&name).is_some() {
            return Err(Refusal::UserExists(name.as_str().into()).into());
        }
        let device = row.device.map(|spec| self.new_device(&spec)).transpose()?;
        let mut user = self.new_user(row.user).await?;
        user.devices.extend(device.map(|(device, _key)| device));
        Ok(Command::AddUser(Box::new(user)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(text: &str) -> Vec<(u64, Result<ImportRow, String>)> {
        read_rows(text.as_bytes())
            .expect("header")
            .map(|(line, row)| (line, row.map_err(|error| error.to_string())))
            .collect()
    }

    #[test]
    fn a_row_becomes_a_user_with_a_device() {
        let text = "username,full_name,groups,totp_key,digits\n\
                    jo,\"Jo, the first\", vpn ; staff ,GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ,8\n";
        let rows = rows(text);
        let (2, Ok(row)) = &rows[0] else { panic!("line 2 is a row") };
        assert_eq!(row.user.full_name, "Jo, the first");
        assert_eq!(row.user.groups, ["vpn", "staff"]);
        let device = row.device.as_ref().expect("device");
        assert_eq!((device.kind, device.digits), (DeviceKind::Totp, 8));
    }

    #[test]
    fn bad_rows_are_named_by_line_and_end_nothing() {
        let text = "username,digits,hotp_key,totp_key\na,x,K,\nb\nc,6,K,K\n\"d\ne\",,,\nf,,,\n";
        let rows = rows(text);
        let lines: Vec<_> = rows.iter().map(|(line, row)| (*line, row.is_ok())).collect();
        assert_eq!(lines, [(2, false), (3, false), (4, false), (5, true), (7, true)]);
        let Err(error) = &rows[0].1 else { panic!("refused") };
        assert_eq!(error, "digits must be 6, 7 or 8, not \"x\"");
        let Err(error) = &rows[1].1 else { panic!("refused") };
        assert_eq!(error, "1 fields where the header has 4");
    }

    #[test]
    fn an_unusable_header_is_refused() {
        for header in ["", "name\n", "username,username\n", "username,shoe_size\n"] {
            assert!(read_rows(header.as_bytes()).is_err(), "{header:?}");
        }
        assert!(read_rows("\u{feff}Username\n".as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in any::<Vec<u8>>()) {
            if let Ok(rows) = read_rows(bytes.as_slice()) {
                rows.for_each(drop);
            }
            let with_header = [b"username,digits,totp_key\n".as_slice(), &bytes].concat();
            if let Ok(rows) = read_rows(with_header.as_slice()) {
                rows.for_each(drop);
            }
        }
    }
}

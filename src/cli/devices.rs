//! `device …`.

use std::io::IsTerminal;

use clap::{Args, Subcommand, ValueEnum};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use watchword_core::factor::Algorithm;

use super::output::{Format, FormatArgs, print_line, table};
use super::socket::{Connection, path};
use super::{Done, NodeArgs};
use crate::admin::{DeviceKind, DeviceSpec, DeviceView, Enrolled, ResyncSpec, UserView};

#[derive(Subcommand)]
pub(super) enum DeviceCommand {
    /// Enrol a device; prints its key as otpauth:// URI and QR code
    Add(AddArgs),
    /// List a user's devices
    List(ListArgs),
    /// Remove a device
    Revoke(IdArgs),
    /// Bring a device back in step by two consecutive passcodes
    Resync(ResyncArgs),
}

#[derive(Args)]
#[command(after_help = "Examples:\n  watchword device add jo totp\n  \
                        watchword device add jo hotp --key JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP --digits 8")]
pub(super) struct AddArgs {
    /// The user, in any spelling
    user: String,
    /// What kind
    kind: KindArg,
    /// A name for people
    #[arg(long, default_value = "")]
    label: String,
    /// The shared key in base32; a new one is made when absent
    #[arg(long)]
    key: Option<String>,
    /// Hash function
    #[arg(long, value_enum, default_value_t = AlgorithmArg::Sha1)]
    algorithm: AlgorithmArg,
    /// Digits of a passcode: 6, 7 or 8
    #[arg(long, default_value_t = 6)]
    digits: u8,
    /// Seconds of a time step: 30 or 60 (totp)
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    period: u32,
    /// First counter to accept (hotp)
    #[arg(long, default_value_t = 0)]
    counter: u64,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArg {
    /// Time-based passcodes (RFC 6238): authenticator apps, most tokens
    Totp,
    /// Event-based passcodes (RFC 4226)
    Hotp,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AlgorithmArg {
    Sha1,
    Sha256,
    Sha512,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword device list jo")]
pub(super) struct ListArgs {
    /// The user, in any spelling
    user: String,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword device revoke 0123456789abcdef0123456789abcdef")]
pub(super) struct IdArgs {
    /// The device's id, as `device list` shows it
    device: String,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  watchword device resync 0123456789abcdef0123456789abcdef 123456 654321"
)]
pub(super) struct ResyncArgs {
    /// The device's id, as `device list` shows it
    device: String,
    /// A passcode of the device
    first: String,
    /// The very next passcode
    second: String,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn run(command: DeviceCommand) -> Done {
    match command {
        DeviceCommand::Add(args) => add(args),
        DeviceCommand::List(args) => list(&args),
        DeviceCommand::Revoke(args) => {
            let mut node = Connection::open(&args.node)?;
            node.delete::<()>(&path(&["v1", "devices", &args.device]))?;
            print_line(&format!("device {} revoked", args.device))
        }
        DeviceCommand::Resync(args) => {
            let mut node = Connection::open(&args.node)?;
            let spec = ResyncSpec { first: args.first, second: args.second };
            let device: DeviceView =
                node.post(&path(&["v1", "devices", &args.device, "resync"]), &spec)?;
            print_line(&format!(
                "device {} is in step again; both passcodes are used up",
                device.id
            ))
        }
    }
}

fn add(args: AddArgs) -> Done {
    let spec = DeviceSpec {
        kind: match args.kind {
            KindArg::Totp => DeviceKind::Totp,
            KindArg::Hotp => DeviceKind::Hotp,
        },
        label: args.label,
        key: args.key,
        algorithm: match args.algorithm {
            AlgorithmArg::Sha1 => Algorithm::Sha1,
            AlgorithmArg::Sha256 => Algorithm::Sha256,
            AlgorithmArg::Sha512 => Algorithm::Sha512,
        },
        digits: args.digits,
        period_seconds: args.period,
        counter: args.counter,
    };
    let mut node = Connection::open(&args.node)?;
    let enrolled: Enrolled = node.post(&path(&["v1", "users", &args.user, "devices"]), &spec)?;
    if args.format.format == Format::Json {
        return print_line(&serde_json::to_string_pretty(&enrolled)?);
    }
    let code = qr_code(&enrolled.uri);
    print_line(&format!(
        "device {}\n{}\n{code}\nThe key is shown this once.",
        enrolled.device.id, enrolled.uri
    ))
}

/// The URI as a QR code, dark on light whatever the terminal's colours are: many cameras do not read
/// the inverse.
fn qr_code(uri: &str) -> String {
    let code = match QrCode::new(uri.as_bytes()) {
        Ok(code) => code.render::<Dense1x2>().build(),
        Err(error) => return format!("(no QR code: {error})"),
    };
    if !std::io::stdout().is_terminal() {
        return code;
    }
    code.lines().map(|line| format!("\x1b[30;107m{line}\x1b[0m\n")).collect()
}

fn list(args: &ListArgs) -> Done {
    let mut node = Connection::open(&args.node)?;
    let user: UserView = node.get(&path(&["v1", "users", &args.user]))?;
    args.format.print(&user.devices, |devices| {
        let mut table = table(&[
            "ID",
            "KIND",
            "LABEL",
            "ALGORITHM",
            "DIGITS",
            "PERIOD",
            "DRIFT",
            "NEXT",
            "CREATED",
        ]);
        for device in devices {
            table.add_row([
                device.id.clone(),
                format!("{:?}", device.kind).to_lowercase(),
                device.label.clone(),
                format!("{:?}", device.algorithm).to_lowercase(),
                device.digits.to_string(),
                device.period_seconds.map_or(String::new(), |seconds| format!("{seconds} s")),
                device.drift_steps.map_or(String::new(), |steps| steps.to_string()),
                device.next_counter.map_or(String::new(), |counter| counter.to_string()),
                device.created.clone(),
            ]);
        }
        table
    })
}

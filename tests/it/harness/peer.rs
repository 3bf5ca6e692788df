//! Programs that others wrote and that speak to Watchword, or think as it should.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Outcome, run, write_secret};

/// The key of an event-based token that the tests enrol, in base32.
pub(crate) struct HotpKey(pub(crate) &'static str);

impl HotpKey {
    /// The passcode of `counter`, as oathtool has it.
    pub(crate) fn passcode(&self, counter: u64) -> String {
        oathtool(&["--hotp", "-b", "-c", &counter.to_string(), self.0])
    }

    /// A passcode that is right for none of the counters up to well behind `counter`.
    pub(crate) fn wrong_passcode(&self, counter: u64) -> String {
        let right: Vec<String> = self.passcodes(0, counter + 200);
        let wrong = (0..1_000_000).map(|number| format!("{number:06}"));
        wrong.into_iter().find(|passcode| !right.contains(passcode)).expect("most are wrong")
    }

    /// The passcodes of `count` counters from `first` on.
    pub(crate) fn passcodes(&self, first: u64, count: u64) -> Vec<String> {
        let (first, window) = (first.to_string(), (count - 1).to_string());
        let passcodes = oathtool(&["--hotp", "-b", "-c", &first, "-w", &window, self.0]);
        passcodes.lines().map(str::to_owned).collect()
    }
}

/// What oathtool prints.
pub(crate) fn oathtool(arguments: &[&str]) -> String {
    run(Command::new("oathtool").args(arguments), "").done()
}

/// Sends one request by FreeRADIUS's client.
pub(crate) fn radclient(server: SocketAddr, command: &str, secret: &str, pairs: &str) -> Outcome {
    let mut radclient = Command::new("radclient");
    radclient.args(["-x", "-r", "1", "-t", "20", &server.to_string(), command, secret]);
    run(&mut radclient, pairs)
}

/// Logs in by EAP, as a Wi-Fi client behind an access point does, with `network` in the words of wpa_supplicant.
pub(crate) fn eapol_test(dir: &Path, server: SocketAddr, secret: &str, network: &str) -> Outcome {
    let config = dir.join("eapol_test.conf");
    write_secret(&config, &format!("network={{\n{network}\n}}\n"));
    let (address, port) = (server.ip().to_string(), server.port().to_string());
    let mut eapol_test = Command::new("eapol_test");
    eapol_test.arg("-c").arg(&config).args(["-a", &address, "-p", &port, "-s", secret, "-t", "20"]);
    run(&mut eapol_test, "")
}

/// Logs `user` in through PAM's RADIUS module, which answers its prompts from `input`, line by line.
pub(crate) fn pamtester(
    dir: &Path,
    server: SocketAddr,
    secret: &str,
    user: &str,
    input: &str,
) -> Outcome {
    let servers = dir.join("pam_radius.conf");
    write_secret(&servers, &format!("{server} {secret} 20\n"));
    let services = dir.join("pam.d");
    std::fs::create_dir_all(&services).expect("a directory");
    let rule = format!("auth required pam_radius_auth.so conf={}\n", servers.display());
    write_secret(&services.join("vpn"), &rule);
    write_secret(&services.join("other"), "auth required pam_deny.so\n");
    let mut pamtester = Command::new("pamtester");
    pamtester
        .env("LD_PRELOAD", "libpam_wrapper.so")
        .env("PAM_WRAPPER", "1")
        .env("PAM_WRAPPER_SERVICE_DIR", &services)
        .args(["vpn", user, "authenticate"]);
    run(&mut pamtester, input)
}

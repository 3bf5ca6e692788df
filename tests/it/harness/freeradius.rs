//! FreeRADIUS as the server behind Watchword: it knows passwords, and what sessions are allowed.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use tempfile::TempDir;

use super::{Certificates, Process};

/// A running server.
pub(crate) struct FreeRadius {
    // Before its directory.
    process: Process,
    pub(crate) address: SocketAddr,
    _dir: TempDir,
}

impl FreeRadius {
    /// The secret that it shares with whoever asks from 127.0.0.1.
    pub(crate) const SECRET: &str = "behind the front";
    /// What it allows the sessions of everybody.
    pub(crate) const FILTER: &str = "staff";

    /// Starts one. Each person's password is `the password of NAME`.
    pub(crate) fn start(certificates: &Certificates, people: &[&str]) -> Self {
        let free = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        Self::start_at(free.expect("a port"), certificates, people)
    }

    /// The same, at an address that was chosen before.
    pub(crate) fn start_at(
        address: SocketAddr,
        certificates: &Certificates,
        people: &[&str],
    ) -> Self {
        let dir = tempfile::Builder::new().prefix("freeradius-").tempdir().expect("a directory");
        let path = dir.path().display();
        let users: String = people.iter().map(|name| user(name)).collect();
        fs::write(dir.path().join("users"), users).expect("written");
        let conf = format!(
            "raddbdir = {path}\nlogdir = {path}\nrun_dir = {path}\ndb_dir = {path}\nlibdir = /usr/lib/freeradius\n\
             max_request_time = 20\n\
             log {{\n destination = stdout\n auth = yes\n}}\n\
             security {{\n max_attributes = 200\n reject_delay = 0\n status_server = yes\n \
             allow_vulnerable_openssl = yes\n}}\n\
             thread pool {{\n start_servers = 2\n max_servers = 2\n}}\n\
             client front {{\n ipaddr = 127.0.0.1\n secret = \"{secret}\"\n require_message_authenticator = yes\n}}\n\
             modules {{\n pap {{\n }}\n chap {{\n }}\n mschap {{\n }}\n\
             files {{\n usersfile = {path}/users\n }}\n\
             eap {{\n default_eap_type = md5\n timer_expire = 60\n md5 {{\n }}\n mschapv2 {{\n }}\n gtc {{\n }}\n\
             tls-config common {{\n private_key_file = {key}\n certificate_file = {certificate}\n ca_file = {ca}\n \
             tls_min_version = \"1.2\"\n tls_max_version = \"1.2\"\n }}\n\
             peap {{\n tls = common\n default_eap_type = mschapv2\n virtual_server = inner\n }}\n\
             ttls {{\n tls = common\n default_eap_type = md5\n virtual_server = inner\n }}\n }}\n}}\n\
             server default {{\n listen {{\n type = auth\n ipaddr = {ip}\n port = {port}\n }}\n{sections}}}\n\
             server inner {{\n{sections}}}\n",
            secret = Self::SECRET,
            key = certificates.path("server.key").display(),
            certificate = certificates.path("server.pem").display(),
            ca = certificates.authority(),
            ip = address.ip(),
            port = address.port(),
            sections = " authorize {\n eap {\n ok = return\n }\n files\n chap\n mschap\n pap\n }\n \
                        authenticate {\n Auth-Type PAP {\n pap\n }\n Auth-Type CHAP {\n chap\n }\n \
                        Auth-Type MS-CHAP {\n mschap\n }\n eap\n }\n",
        );
        fs::write(dir.path().join("radiusd.conf"), conf).expect("written");
        let mut command = Command::new("/usr/sbin/freeradius");
        // In the foreground, with its log here.
        command.args(["-f", "-l", "stdout", "-d"]).arg(dir.path());
        let process = Process::spawn("freeradius", &mut command);
        process.wait_for_output("that it has started", |line| {
            line.contains("Ready to process requests").then_some(())
        });
        Self { process, address, _dir: dir }
    }

    /// The password of a person.
    pub(crate) fn password(name: &str) -> String {
        format!("the password of {name}")
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        self.process.output()
    }
}

/// A line of the file of users, and what their sessions are allowed.
fn user(name: &str) -> String {
    let (password, filter) = (FreeRadius::password(name), FreeRadius::FILTER);
    format!(
        "{name} Cleartext-Password := \"{password}\"\n\tFilter-Id = \"{filter}\",\n\tClass = 0x010203,\n\
         \tTunnel-Password:1 = \"tunnel of {name}\",\n\tReply-Message = \"welcome\"\n"
    )
}

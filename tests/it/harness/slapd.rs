//! OpenLDAP's server with some people.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use tempfile::TempDir;

use super::{Certificates, Process, run};

/// Where people are.
pub(crate) const PEOPLE: &str = "ou=people,dc=example,dc=org";
/// Who may search, and by which password.
pub(crate) const READER: (&str, &str) = ("cn=reader,dc=example,dc=org", "reads the directory");

/// A running server.
pub(crate) struct Slapd {
    // Before its directory.
    process: Process,
    /// `ldap://`, which takes StartTLS.
    pub(crate) ldap: String,
    /// `ldaps://`.
    pub(crate) ldaps: String,
    _dir: TempDir,
}

impl Slapd {
    /// Starts one. Each person's password is `the password of NAME`.
    pub(crate) fn start(certificates: &Certificates, people: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("slapd-").tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::create_dir(dir.path().join("db")).expect("a directory");
        let conf = format!(
            "include /etc/ldap/schema/core.schema\n\
             include /etc/ldap/schema/cosine.schema\n\
             include /etc/ldap/schema/inetorgperson.schema\n\
             pidfile {pid}\n\
             modulepath /usr/lib/ldap\nmoduleload back_mdb\n\
             TLSCACertificateFile {ca}\nTLSCertificateFile {certificate}\nTLSCertificateKeyFile {key}\n\
             database mdb\nmaxsize 16777216\nsuffix \"dc=example,dc=org\"\ndirectory {db}\n\
             access to attrs=userPassword by anonymous auth by * none\n\
             access to * by dn.exact=\"{reader}\" read by anonymous auth by * none\n",
            pid = path("pid"),
            ca = certificates.authority(),
            certificate = certificates.path("server.pem").display(),
            key = certificates.path("server.key").display(),
            db = path("db"),
            reader = READER.0,
        );
        fs::write(dir.path().join("slapd.conf"), conf).expect("written");
        let mut entries = format!(
            "dn: dc=example,dc=org\nobjectClass: domain\ndc: example\n\n\
             dn: {PEOPLE}\nobjectClass: organizationalUnit\nou: people\n\n\
             dn: {}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: reader\nuserPassword: {}\n",
            READER.0, READER.1,
        );
        for name in people {
            entries += &format!(
                "\ndn: uid={name},{PEOPLE}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {name}\n\
                 userPassword: {}\n",
                Self::password(name)
            );
        }
        let mut load = Command::new("/usr/sbin/slapadd");
        run(load.args(["-q", "-f", &path("slapd.conf")]), &entries).done();
        let [ldap, ldaps] = [free_port(), free_port()];
        let [ldap, ldaps] =
            [format!("ldap://127.0.0.1:{ldap}"), format!("ldaps://127.0.0.1:{ldaps}")];
        let mut command = Command::new("/usr/sbin/slapd");
        // It stays in the foreground, and says when it has started.
        command.args(["-f", &path("slapd.conf"), "-d", "stats", "-h", &format!("{ldap} {ldaps}")]);
        let process = Process::spawn("slapd", &mut command);
        process.wait_for_error("that it has started", |line| {
            line.contains("slapd starting").then_some(())
        });
        Self { process, ldap, ldaps, _dir: dir }
    }

    /// The password of a person.
    pub(crate) fn password(name: &str) -> String {
        format!("the password of {name}")
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// What it has said about the requests that came.
    pub(crate) fn log(&self) -> String {
        self.process.errors()
    }
}

pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.expect("a port").port()
}

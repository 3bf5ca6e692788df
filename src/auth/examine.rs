//! Looking at a request with this node's eyes, which may be old: what it finds is for `apply` to check.

use std::time::Duration;

use watchword_core::attempt::Reason;
use watchword_core::challenge::ChallengeRef;
use watchword_core::client::{FirstFactor, Source};
use watchword_core::command::{Decision, Finding, FirstProof, Proof};
use watchword_core::directory::Directory;
use watchword_core::factor::DIGITS_MIN;
use watchword_core::id::{DirectoryId, UserId};
use watchword_core::name::UserName;
use watchword_core::policy;

use super::reading::{self, Appended, Reading, readings};
use super::second::{AskedToken, ChallengeToken, PasscodeMatch, Token};
use super::subject::{self, Seen, Subject};
use super::{Authenticator, Credential, Error, Request, challenged_client};
use crate::clock;
use crate::directory::{Answer, Place, Question, Reply, Said};
use crate::keys::Owner;

/// What the examination of a request leads to.
pub(super) enum Examined {
    /// A copy of the request has been decided.
    Decided(Decision),
    /// The passcode must be asked for; what is to be said when it turns out to be right.
    Ask(ChallengeToken, Option<Said>),
    /// A directory asks something, of this user if it is one.
    Asks { user: Option<UserId>, token: AskedToken, said: Option<Said> },
    /// What was examined is no longer so.
    Old,
    /// There is something to decide, and something to say along with it.
    Conclude {
        user: Option<UserId>,
        challenge: Option<ChallengeRef>,
        finding: Finding,
        said: Option<Said>,
    },
}

impl Examined {
    /// The same, with what a directory wants said to a user whom it has accepted. Nobody else is told.
    fn granting(self, granted: Option<Said>) -> Self {
        match self {
            Self::Ask(token, _) => Self::Ask(token, granted),
            Self::Conclude {
                user, challenge, finding: finding @ Finding::Proven { .. }, ..
            } => Self::Conclude { user, challenge, finding, said: granted },
            other => other,
        }
    }

    /// The same, with what a directory wants said to a user whom it has refused.
    fn refusing(self, refused: Option<Said>) -> Self {
        match self {
            Self::Conclude { user, challenge, finding: finding @ Finding::Failed(_), .. } => {
                Self::Conclude { user, challenge, finding, said: refused }
            }
            other => other,
        }
    }
}

impl Authenticator {
    /// Looks at the request with this node's eyes.
    pub(super) async fn examine(&self, request: &Request) -> Result<Examined, Error> {
        let name = UserName::canonical(&request.username).ok();
        let now = clock::now();
        let seen = self.cluster.look(|state| Seen::in_state(state, request, name.as_ref(), now));
        let subject = match seen {
            Seen::Decided(decision) => return Ok(Examined::Decided(decision)),
            Seen::Nobody => return self.examine_nobody(request, name.as_ref()).await,
            Seen::User(subject) => subject,
        };
        request.note(format_args!("user {} is known", subject.user.name.text()));
        if let Err(reason) = policy::admit(&subject.user, subject.now) {
            self.compare_with_nobody(request).await?;
            return Ok(failed(Some(subject.id), reason));
        }
        if let Some(token) = &request.challenge {
            return self.examine_answer(&subject, token).await;
        }
        match &request.policy.first_factor {
            FirstFactor::None => {
                request.note(format_args!("first factor: the client has checked it"));
                let Credential::Typed(typed) = &request.credential else {
                    return Ok(failed(Some(subject.id), Reason::PasswordUncheckable));
                };
                self.examine_passcode(&subject, FirstProof::Client, None, typed).await
            }
            FirstFactor::Sources(sources) => self.examine_sources(&subject, sources).await,
        }
    }

    /// Asks for the password's owner: the first source that knows the user decides.
    async fn examine_sources(
        &self,
        subject: &Subject<'_>,
        sources: &[Source],
    ) -> Result<Examined, Error> {
        for source in sources {
            let examined = match source {
                Source::Local => self.examine_password(subject).await?,
                Source::Directory(id) => self.examine_directory(subject, *id, None).await?,
            };
            if let Some(examined) = examined {
                return Ok(examined);
            }
        }
        self.compare_with_nobody(subject.request).await?;
        let reason = match subject.request.credential {
            Credential::Typed(_) => Reason::PasswordMissing,
            Credential::Sent { .. } => Reason::PasswordUncheckable,
        };
        Ok(failed(Some(subject.id), reason))
    }

    /// An unknown user passes only where the client says so and has checked the first factor itself.
    async fn examine_nobody(
        &self,
        request: &Request,
        name: Option<&UserName>,
    ) -> Result<Examined, Error> {
        let Some(name) = name else { return Ok(failed(None, Reason::UserNameMalformed)) };
        request.note(format_args!("the user is unknown"));
        if !request.policy.require_user_match && name.may_pass_unknown() {
            if request.policy.first_factor == FirstFactor::None {
                return Ok(proven(None, None, FirstProof::Client, Proof::UnknownUser));
            }
            if let Some(examined) = self.examine_stranger(request, name).await? {
                return Ok(examined);
            }
        }
        self.compare_with_nobody(request).await?;
        Ok(failed(None, Reason::UserUnknown))
    }

    /// Who is no user here may be one of a directory, and pass on the password alone.
    async fn examine_stranger(
        &self,
        request: &Request,
        name: &UserName,
    ) -> Result<Option<Examined>, Error> {
        let (directories, cluster) = self
            .cluster
            .look(|state| (subject::directories(state, request), subject::cluster(state)));
        let asked = self.asked(request, name);
        if request.challenge.is_some() && asked.is_none() {
            return Ok(Some(failed(None, Reason::ChallengeUnknown)));
        }
        let password = match &request.credential {
            Credential::Typed(typed) => Some(typed.as_slice()),
            Credential::Sent { .. } => None,
        };
        for (id, directory) in directories {
            if asked.as_ref().is_some_and(|asked| asked.directory != directory.revision) {
                continue;
            }
            let (attributes, place) = (&request.attributes, asked.as_ref().map(|one| &one.place));
            let question = Question { user: name, password, attributes, place, cluster };
            let reply = self.directories.check(id, &directory, &question).await?;
            let first = FirstProof::Directory { directory: id, revision: directory.revision };
            self.learn_server(id, directory.revision, reply.signs);
            let Reply { answer, said, place, .. } = reply;
            return Ok(Some(match answer {
                Answer::Unknown | Answer::Uncheckable => continue,
                Answer::Right => proven(None, None, first, Proof::UnknownUser).granting(said),
                Answer::Wrong => failed(None, Reason::PasswordWrong).refusing(said),
                Answer::Refused(reason) => failed(None, reason).refusing(said),
                Answer::Asks => asks(None, &directory, name, place, said),
            }));
        }
        Ok(None)
    }

    /// What a directory has asked of this user, if the request answers that.
    fn asked(&self, request: &Request, name: &UserName) -> Option<AskedToken> {
        let token = request.challenge.as_ref()?;
        match Token::open(&self.keys, challenged_client(request), token)? {
            Token::Asked(asked) if asked.is_of(name) => Some(asked),
            _ => None,
        }
    }

    /// Spends as much time as on a user whose password is wrong: who may not try to log in must not
    /// learn from the time it takes whether there is a user, and how the user stands.
    async fn compare_with_nobody(&self, request: &Request) -> Result<(), Error> {
        let compares = request.policy.first_factor.sources().contains(&Source::Local);
        let Credential::Typed(typed) = &request.credential else { return Ok(()) };
        if !compares || request.challenge.is_some() {
            return Ok(());
        }
        let appended = reading::appended(typed, usize::from(DIGITS_MIN));
        let appended = appended.map(|at| Appended { at, is_right: false });
        for reading in readings(request.policy.passcode_input, typed, appended) {
            self.passwords.verify(reading.password, None).await?;
        }
        Ok(())
    }

    /// The answer to a challenge: the token vouches for the first factor.
    async fn examine_answer(&self, subject: &Subject<'_>, token: &[u8]) -> Result<Examined, Error> {
        let unknown = || Ok(failed(Some(subject.id), Reason::ChallengeUnknown));
        let client = challenged_client(subject.request);
        let token = match Token::open(&self.keys, client, token) {
            Some(Token::Challenge(token))
                if token.user == subject.id && token.cluster == subject.cluster =>
            {
                token
            }
            Some(Token::Asked(asked)) if asked.is_of(&subject.user.name) => {
                let Some(id) = subject.directory_at(asked.directory) else { return unknown() };
                let examined = self.examine_directory(subject, id, Some(&asked.place)).await?;
                return Ok(examined.unwrap_or(Examined::Old));
            }
            _ => return unknown(),
        };
        let ChallengeToken { challenge, first, reply, .. } = token;
        subject.request.note(format_args!("the request answers a challenge"));
        let has_expired =
            challenge.expires <= subject.now && !cfg!(mutant = "accept_expired_challenge");
        let said = match reply {
            Some(request) if !has_expired => self.held(request).await?,
            _ => None,
        };
        let is_lost = reply.is_some() && said.is_none();
        if has_expired || is_lost || !subject.vouches(first) {
            let user = Some(subject.id);
            let finding = Finding::Failed(Reason::ChallengeExpired);
            return Ok(Examined::Conclude {
                user,
                challenge: Some(challenge),
                finding,
                said: None,
            });
        }
        let typed = subject.request.credential.typed();
        let examined = self.examine_passcode(subject, first, Some(challenge), typed).await?;
        Ok(examined.granting(said))
    }

    /// Asks a directory for the password, or answers at `place` what it has asked; `None` when it does not know the
    /// user, or cannot check what was sent. It is asked once only: a second reading of what was typed would be a second
    /// wrong password there.
    async fn examine_directory(
        &self,
        subject: &Subject<'_>,
        id: DirectoryId,
        place: Option<&Place>,
    ) -> Result<Option<Examined>, Error> {
        let Subject { request, user, .. } = subject;
        let Some(directory) = subject.directory(id) else { return Ok(Some(Examined::Old)) };
        let reading = match (&request.credential, place) {
            (Credential::Sent { .. }, _) => None,
            // What answers the directory's own question is for the directory alone.
            (Credential::Typed(typed), Some(_)) => Some(Reading::password(typed)),
            (Credential::Typed(typed), None) => {
                let appended = subject.appended_passcode(&self.keys)?;
                let readings = readings(request.policy.passcode_input, typed, appended);
                let Some(reading) = readings.into_iter().next() else { return Ok(None) };
                Some(reading)
            }
        };
        let question = Question {
            user: &user.name,
            password: reading.as_ref().map(|reading| reading.password.as_slice()),
            attributes: &request.attributes,
            place,
            cluster: subject.cluster,
        };
        let reply = self.directories.check(id, directory, &question).await?;
        self.learn_server(id, directory.revision, reply.signs);
        let Reply { answer, identity, said, place, .. } = reply;
        request.note(format_args!("first factor: directory {} says: {}", directory.name, answer));
        Ok(match answer {
            Answer::Unknown | Answer::Uncheckable => None,
            Answer::Right if identity.is_some_and(|one| !subject.is_called(&one)) => {
                Some(failed(Some(subject.id), Reason::IdentityDiffers))
            }
            Answer::Right => {
                let first = FirstProof::Directory { directory: id, revision: directory.revision };
                let passcode = reading.and_then(|reading| reading.passcode).unwrap_or_default();
                let examined = self.examine_passcode(subject, first, None, &passcode).await?;
                Some(examined.granting(said))
            }
            Answer::Wrong => {
                let wrong = self.conclude_wrong(subject, None, Reason::PasswordWrong).await?;
                Some(wrong.refusing(said))
            }
            Answer::Refused(reason) => Some(failed(Some(subject.id), reason).refusing(said)),
            Answer::Asks => Some(asks(Some(subject.id), directory, &user.name, place, said)),
        })
    }

    /// Password and passcode share one field; finds out how. `None` when the user has no local password, or none was
    /// typed.
    async fn examine_password(&self, subject: &Subject<'_>) -> Result<Option<Examined>, Error> {
        let Some(password) = &subject.user.password else { return Ok(None) };
        let Credential::Typed(typed) = &subject.request.credential else { return Ok(None) };
        let first = FirstProof::Password { revision: password.revision };
        let hash = self
            .keys
            .open(Owner::UserPassword(subject.id), &password.hash)
            .map_err(|source| subject.key_error(source))?;
        // A bypass stands in for the passcode, but the user may type one all the same.
        let appended = subject.appended_passcode(&self.keys)?;
        let remembering = Duration::from_secs(subject.settings.password_remembered_seconds());
        for reading in readings(subject.request.policy.passcode_input, typed, appended) {
            let recognised =
                self.passwords.recognise(reading.password, hash.clone(), remembering).await?;
            let right = recognised || cfg!(mutant = "skip_password");
            subject.request.note(format_args!(
                "first factor: the password, read {}, is {}",
                if reading.passcode.is_some() { "with a passcode behind it" } else { "alone" },
                if right { "right" } else { "wrong" },
            ));
            if right {
                let passcode = reading.passcode.unwrap_or_default();
                return self.examine_passcode(subject, first, None, &passcode).await.map(Some);
            }
        }
        self.conclude_wrong(subject, None, Reason::PasswordWrong).await.map(Some)
    }

    /// The first factor is right; `typed` should be the passcode. Nothing typed asks for it.
    async fn examine_passcode(
        &self,
        subject: &Subject<'_>,
        first: FirstProof,
        challenge: Option<ChallengeRef>,
        typed: &[u8],
    ) -> Result<Examined, Error> {
        let Subject { request, id, user, now, .. } = subject;
        let conclude =
            |finding| Examined::Conclude { user: Some(*id), challenge, finding, said: None };
        if let Some(bypass) = user.bypass_at(*now) {
            request.note(format_args!("second factor: bypassed ({})", bypass.reason));
            let second = Proof::Bypass { revision: bypass.revision };
            return Ok(conclude(Finding::Proven { first, second }));
        }
        if user.devices.is_empty() {
            return Ok(conclude(Finding::Failed(Reason::DeviceMissing)));
        }
        if typed.is_empty() {
            if challenge.is_some() || !request.credential.takes_challenge() {
                return Ok(conclude(Finding::Failed(Reason::PasscodeMissing)));
            }
            let expires = now.plus_ms(subject.settings.challenge_seconds() * 1000);
            return ChallengeToken::new(subject.cluster, *id, first, expires)
                .map(|token| Examined::Ask(token, None))
                .map_err(Error::Challenge);
        }
        let found = subject.match_passcode(&self.keys, typed)?;
        request.note(format_args!(
            "second factor: the passcode {}",
            match found {
                PasscodeMatch::Fresh { .. } => "is right",
                PasscodeMatch::Used => "was right once and is used up",
                PasscodeMatch::Wrong => "is of none of the user's devices",
            }
        ));
        match found {
            PasscodeMatch::Fresh { device, moving_factor } => {
                let second = Proof::Passcode { device, moving_factor };
                Ok(conclude(Finding::Proven { first, second }))
            }
            PasscodeMatch::Used => {
                self.conclude_wrong(subject, challenge, Reason::PasscodeUsed).await
            }
            PasscodeMatch::Wrong => {
                self.conclude_wrong(subject, challenge, Reason::PasscodeWrong).await
            }
        }
    }

    /// What was typed is wrong by what this node knows of the user. Before that counts, it must be up to
    /// date: on an old state a new password looks wrong, and the next passcodes of a token that was used
    /// elsewhere do too. Nobody can check that later: `apply` does not see what was typed.
    async fn conclude_wrong(
        &self,
        subject: &Subject<'_>,
        challenge: Option<ChallengeRef>,
        reason: Reason,
    ) -> Result<Examined, Error> {
        self.cluster.catch_up().await?;
        if !self.cluster.look(|state| subject.is_current(state)) {
            return Ok(Examined::Old);
        }
        let finding = Finding::Failed(reason);
        Ok(Examined::Conclude { user: Some(subject.id), challenge, finding, said: None })
    }
}

fn failed(user: Option<UserId>, reason: Reason) -> Examined {
    Examined::Conclude { user, challenge: None, finding: Finding::Failed(reason), said: None }
}

fn proven(
    user: Option<UserId>,
    challenge: Option<ChallengeRef>,
    first: FirstProof,
    second: Proof,
) -> Examined {
    Examined::Conclude { user, challenge, finding: Finding::Proven { first, second }, said: None }
}

/// A directory asks `name` something, and goes on at `place`.
fn asks(
    user: Option<UserId>,
    directory: &Directory,
    name: &UserName,
    place: Option<Place>,
    said: Option<Said>,
) -> Examined {
    let place = place.unwrap_or_default();
    Examined::Asks { user, token: AskedToken::new(directory.revision, name, place), said }
}

//! A PKCS#11 token as the wrapper of the data key: a key that never leaves the token encrypts it
//! there, by AES-GCM (PKCS#11, mechanism CKM_AES_GCM).
//!
//! The token is needed when a node starts, and while it runs only when the data key is replaced: each
//! use loads, logs in, and logs out again. Nothing is ever made or changed in the token; in particular a missing key is not made,
//! because a key that appears where another one was expected would hide that data is lost.

mod error;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

use error::Answer;
pub use error::Pkcs11Error;

use super::Owner;
use super::private_file::read_private;
use crate::config::Pkcs11Config;
use crate::random;

const IV_BYTES: usize = 12;
const TAG_BITS: u64 = 128;

/// A module keeps one state per process, so two uses must not overlap.
static IN_USE: Mutex<()> = Mutex::new(());

/// Seals `secret` for `owner` by the token's key: initialisation vector, ciphertext, 128-bit tag.
///
/// # Errors
/// Names what is amiss: module, token, PIN or key.
pub(super) fn seal(
    config: &Pkcs11Config,
    owner: Owner,
    secret: &[u8],
) -> Result<Vec<u8>, Pkcs11Error> {
    let mut iv = random::bytes::<IV_BYTES>()?;
    let text = with_key(config, |session, key| {
        encrypt(session, key, &mut iv, &additional_data(owner), secret).map_err(|error| {
            let Pkcs11Config { token, key, .. } = config.clone();
            match error {
                Error::Pkcs11(RvError::MechanismInvalid, _) => Pkcs11Error::NoGcm(token),
                error => Pkcs11Error::Seal { token, key, source: Answer(error) },
            }
        })
    })?;
    Ok([&iv[..], &text].concat())
}

/// Opens what [`seal`] made.
///
/// # Errors
/// Names what is amiss: module, token, PIN or key.
pub(super) fn open(
    config: &Pkcs11Config,
    owner: Owner,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Pkcs11Error> {
    let failed = |error| {
        let Pkcs11Config { token, key, .. } = config.clone();
        match error {
            Error::Pkcs11(RvError::MechanismInvalid, _) => Pkcs11Error::NoGcm(token),
            error => Pkcs11Error::Open { token, key, source: Answer(error) },
        }
    };
    let (iv, text) = sealed.split_first_chunk().ok_or_else(|| failed(Error::InvalidValue))?;
    with_key(config, |session, key| {
        decrypt(session, key, *iv, &additional_data(owner), text).map_err(failed)
    })
}

fn additional_data(owner: Owner) -> Vec<u8> {
    [&b"watchword wrap"[..], &owner.additional_data()].concat()
}

/// A token that insists on an initialisation vector of its own making puts it in the place of ours.
fn encrypt(
    session: &Session,
    key: ObjectHandle,
    iv: &mut [u8; IV_BYTES],
    additional_data: &[u8],
    text: &[u8],
) -> Result<Vec<u8>, Error> {
    let parameters = GcmParams::new(iv, additional_data, TAG_BITS.into())?;
    session.encrypt(&Mechanism::AesGcm(parameters), key, text)
}

fn decrypt(
    session: &Session,
    key: ObjectHandle,
    mut iv: [u8; IV_BYTES],
    additional_data: &[u8],
    text: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let parameters = GcmParams::new(&mut iv, additional_data, TAG_BITS.into())?;
    session.decrypt(&Mechanism::AesGcm(parameters), key, text).map(Zeroizing::new)
}

/// Logs in, does `work` with the key, and logs out.
fn with_key<T>(
    config: &Pkcs11Config,
    work: impl FnOnce(&Session, ObjectHandle) -> Result<T, Pkcs11Error>,
) -> Result<T, Pkcs11Error> {
    let pin = read_pin(config)?;
    let _alone = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = |error| Pkcs11Error::Module { path: config.module.clone(), source: Answer(error) };
    let module = load(&config.module).map_err(failed)?;
    let done = find_token(&module, config).and_then(|slot| {
        let session = log_in(&module, slot, config, &pin)?;
        let key = find_key(&session, config)?;
        work(&session, key)
    });
    // Ends the session, too. Nothing depends on its success: the work is done or it is not.
    if let Err(error) = module.finalize() {
        tracing::debug!(error = %Answer(error), "a PKCS#11 module does not end in order");
    }
    done
}

/// A module that is ready to be used.
fn load(path: &Path) -> Result<Pkcs11, Error> {
    let module = Pkcs11::new(path)?;
    // It stays in memory until the process ends: some leave threads or exit handlers behind, which
    // must not find their code gone.
    std::mem::forget(module.clone());
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // It did not end in order the last time.
        Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(module),
        result => result.map(|()| module),
    }
}

fn read_pin(config: &Pkcs11Config) -> Result<AuthPin, Pkcs11Error> {
    let text = read_private(&config.pin_file).map_err(|error| Pkcs11Error::PinFile {
        token: config.token.clone(),
        source: Box::new(error),
    })?;
    let pin = std::str::from_utf8(&text).unwrap_or_default().trim_end_matches(['\r', '\n']);
    if pin.is_empty() {
        return Err(Pkcs11Error::PinMalformed(config.pin_file.clone()));
    }
    // The type wipes itself, and a box of this size is not moved on the way.
    Ok(AuthPin::new(pin.into()))
}

/// The slot of the one token that has the label, if that token is fit for use.
fn find_token(module: &Pkcs11, config: &Pkcs11Config) -> Result<Slot, Pkcs11Error> {
    let path = || config.module.clone();
    let slots = module
        .get_slots_with_token()
        .map_err(|error| Pkcs11Error::Module { path: path(), source: Answer(error) })?;
    // A slot that tells nothing of itself may be somebody else's; if not, its token is missed.
    let about =
        slots.into_iter().filter_map(|slot| Some((slot, module.get_token_info(slot).ok()?)));
    let mut named =
        about.filter(|(_, about)| about.token_initialized() && about.label() == config.token);
    let token = config.token.clone();
    let (slot, about) = match (named.next(), named.next()) {
        (Some(only), None) => only,
        (None, _) => return Err(Pkcs11Error::TokenAbsent { module: path(), token }),
        _ => return Err(Pkcs11Error::TokenAmbiguous { module: path(), token }),
    };
    if about.user_pin_locked() {
        return Err(Pkcs11Error::PinLocked(token));
    }
    if about.user_pin_final_try() {
        return Err(Pkcs11Error::PinLastTry { module: path(), token });
    }
    // Asked for by name: of a list of all, the library logs each that it has no name for as an error.
    match module.get_mechanism_info(slot, MechanismType::AES_GCM) {
        Ok(about) if about.encrypt() && about.decrypt() => Ok(slot),
        Ok(_) | Err(Error::Pkcs11(RvError::MechanismInvalid, _)) => Err(Pkcs11Error::NoGcm(token)),
        Err(error) => Err(Pkcs11Error::Token { token, source: Answer(error) }),
    }
}

fn log_in(
    module: &Pkcs11,
    slot: Slot,
    config: &Pkcs11Config,
    pin: &AuthPin,
) -> Result<Session, Pkcs11Error> {
    let Pkcs11Config { token, pin_file, .. } = config.clone();
    let session = match module.open_ro_session(slot) {
        Ok(session) => session,
        Err(error) => return Err(Pkcs11Error::Token { token, source: Answer(error) }),
    };
    match session.login(UserType::User, Some(pin)) {
        Ok(()) => Ok(session),
        Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(Pkcs11Error::PinLocked(token)),
        Err(error) => Err(Pkcs11Error::PinRefused { token, pin_file, source: Answer(error) }),
    }
}

/// The one key that has the label, if it cannot be taken out of the token.
fn find_key(session: &Session, config: &Pkcs11Config) -> Result<ObjectHandle, Pkcs11Error> {
    let Pkcs11Config { module, token, key, .. } = config.clone();
    let wanted = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Token(true),
        Attribute::Label(key.as_bytes().to_vec()),
    ];
    let failed = |error| Pkcs11Error::Token { token: token.clone(), source: Answer(error) };
    let found = session.find_objects(&wanted).map_err(failed)?;
    let handle = match *found.as_slice() {
        [only] => only,
        [] => return Err(Pkcs11Error::KeyAbsent { module, token, key }),
        _ => return Err(Pkcs11Error::KeyAmbiguous { token, key }),
    };
    let told = session.get_attributes(handle, &[AttributeType::Extractable]).map_err(failed)?;
    match *told.as_slice() {
        [Attribute::Extractable(false)] => Ok(handle),
        _ => Err(Pkcs11Error::KeyExtractable { token, key }),
    }
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;
    use crate::keys::{KeyError, private_file::write_private};

    fn config(dir: &Path, module: &str) -> Pkcs11Config {
        let pin_file = dir.join("pin");
        if !pin_file.exists() {
            write_private(&pin_file, b"1234\n").expect("writes");
        }
        Pkcs11Config {
            module: module.into(),
            token: "mfa".to_owned(),
            key: "wrapping".to_owned(),
            pin_file,
        }
    }

    #[test]
    fn what_is_no_module_is_named_and_so_is_what_holds_no_pin() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for module in ["/nonexistent/module.so", "/lib/x86_64-linux-gnu/libm.so.6"] {
            let error = seal(&config(dir.path(), module), Owner::DataKey, b"x");
            let error = error.expect_err("no module");
            let text = crate::error_chain::chain(&error);
            assert!(matches!(error, Pkcs11Error::Module { .. }), "{text}");
            assert!(text.contains(module), "{text}");
        }
        let config = config(dir.path(), "/nonexistent/module.so");
        for (pin, said) in [(&b"\n"[..], "does not hold the PIN"), (b"\xff", "does not hold")] {
            std::fs::write(&config.pin_file, pin).expect("writes");
            let error = seal(&config, Owner::DataKey, b"x").expect_err("no PIN").to_string();
            assert!(error.contains(said), "{error}");
        }
        std::fs::remove_file(&config.pin_file).expect("removes");
        let error = seal(&config, Owner::DataKey, b"x").expect_err("no PIN");
        assert!(matches!(error, Pkcs11Error::PinFile { .. }), "{error}");
    }

    #[test]
    fn too_few_bytes_do_not_open() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let config = config(dir.path(), "/nonexistent/module.so");
        let error = open(&config, Owner::DataKey, &[0; IV_BYTES - 1]).expect_err("too short");
        assert!(matches!(KeyError::from(error), KeyError::Pkcs11(Pkcs11Error::Open { .. })));
    }

    #[test]
    fn answers_are_short() {
        let answer = Error::Pkcs11(RvError::GeneralError, Function::Decrypt);
        assert_eq!(Answer(answer).to_string(), "C_Decrypt answers GeneralError");
    }
}

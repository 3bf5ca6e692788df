//! Agreement with an implementation that we did not write.

use std::process::Command;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use watchword_core::factor::{Algorithm, Generator};

/// Passcodes compared. Each is one run of oathtool.
const COMPARED: usize = 1_200;

#[test]
fn passcodes_agree_with_oathtool() {
    let mut runner = TestRunner::default();
    let algorithms =
        [(Algorithm::Sha1, "SHA1"), (Algorithm::Sha256, "SHA256"), (Algorithm::Sha512, "SHA512")];
    let case = (
        proptest::collection::vec(proptest::num::u8::ANY, 16..=128),
        0..algorithms.len(),
        6..=8u8,
        // oathtool reads times up to the year 9999.
        0..8_000_000_000u64,
    );
    for number in 0..COMPARED {
        let (key, algorithm, digits, factor) =
            case.new_tree(&mut runner).expect("a case").current();
        let (algorithm, name) = algorithms[algorithm];
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut oathtool = Command::new("oathtool");
        oathtool.arg("-d").arg(digits.to_string());
        // HOTP is SHA-1 in oathtool; TOTP takes all three and shares the arithmetic.
        let step = if algorithm == Algorithm::Sha1 && number % 2 == 0 {
            oathtool.arg("--hotp").arg("-c").arg(factor.to_string());
            factor
        } else {
            oathtool.arg(format!("--totp={name}")).arg("-N").arg(format!("@{factor}"));
            factor / 30
        };
        let output = oathtool.arg(&hex).output().expect("oathtool is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let expected = String::from_utf8(output.stdout).expect("ASCII");
        let ours = Generator::new(&key, algorithm, digits).passcode(step);
        assert_eq!(ours, expected.trim(), "{name} {digits} {factor} {hex}");
    }
}

//! Key pairs of an identity provider, made anew for each test.

use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rsa::rand_core::{OsRng, RngCore as _};
use serde_json::{Value, json};

/// A key pair.
pub struct KeyPair {
    /// What it signs with.
    pub algorithm: Algorithm,
    /// The private half.
    pub encoding: EncodingKey,
    /// The public half.
    pub public_pem: String,
    /// The private half as PEM.
    pub private_pem: String,
}

impl KeyPair {
    /// RS256.
    pub fn rsa(bits: usize) -> Self {
        let private = rsa::RsaPrivateKey::new(&mut OsRng, bits).unwrap();
        let public_pem = private.to_public_key().to_public_key_pem(LineEnding::LF);
        let private_pem = private.to_pkcs8_pem(LineEnding::LF).unwrap().to_string();
        Self {
            algorithm: Algorithm::RS256,
            encoding: EncodingKey::from_rsa_pem(private_pem.as_bytes()).unwrap(),
            public_pem: public_pem.unwrap(),
            private_pem,
        }
    }

    /// ES256.
    pub fn ec() -> Self {
        let private = p256::SecretKey::random(&mut OsRng);
        let public_pem = private.public_key().to_public_key_pem(LineEnding::LF);
        let private_pem = private.to_pkcs8_pem(LineEnding::LF).unwrap().to_string();
        Self {
            algorithm: Algorithm::ES256,
            encoding: EncodingKey::from_ec_pem(private_pem.as_bytes()).unwrap(),
            public_pem: public_pem.unwrap(),
            private_pem,
        }
    }

    /// `EdDSA`.
    pub fn ed() -> Self {
        let mut seed = [0; 32];
        OsRng.fill_bytes(&mut seed);
        let private = ed25519_dalek::SigningKey::from_bytes(&seed);
        let public_pem = private.verifying_key().to_public_key_pem(LineEnding::LF);
        let private_pem = private.to_pkcs8_pem(LineEnding::LF).unwrap().to_string();
        Self {
            algorithm: Algorithm::EdDSA,
            encoding: EncodingKey::from_ed_pem(private_pem.as_bytes()).unwrap(),
            public_pem: public_pem.unwrap(),
            private_pem,
        }
    }

    /// A token with these claims, which names its key if `id` is given.
    pub fn sign(&self, id: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = id.map(str::to_owned);
        jsonwebtoken::encode(&header, claims, &self.encoding).unwrap()
    }

    /// A token with these claims that demands of its reader to understand something.
    pub fn sign_critical(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.crit = Some(vec!["b64".to_owned()]);
        jsonwebtoken::encode(&header, claims, &self.encoding).unwrap()
    }

    /// The public half for a key set.
    pub fn jwk(&self, id: &str) -> Value {
        if self.algorithm == Algorithm::EdDSA {
            let key = VerifyingKey::from_public_key_pem(&self.public_pem).unwrap();
            let x = data_encoding::BASE64URL_NOPAD.encode(key.as_bytes());
            return json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": id, "x": x});
        }
        let mut jwk = Jwk::from_encoding_key(&self.encoding, self.algorithm).unwrap();
        jwk.common.key_id = Some(id.to_owned());
        json!(jwk)
    }
}

package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	_ "crypto/sha256" // registers the hashes
	_ "crypto/sha512"
	"math/big"
	"slices"
)

// algorithm is a way to sign, by its name in RFC 7518.
type algorithm struct {
	name  string
	hash  crypto.Hash
	fits  func(material any) bool
	check func(h crypto.Hash, material any, message, signature []byte) bool
}

var algorithms = []algorithm{
	{"HS256", crypto.SHA256, isSecret(32), checkHMAC},
	{"HS384", crypto.SHA384, isSecret(48), checkHMAC},
	{"HS512", crypto.SHA512, isSecret(64), checkHMAC},
	{"RS256", crypto.SHA256, isRSA, checkPKCS1},
	{"RS384", crypto.SHA384, isRSA, checkPKCS1},
	{"RS512", crypto.SHA512, isRSA, checkPKCS1},
	{"PS256", crypto.SHA256, isRSA, checkPSS},
	{"PS384", crypto.SHA384, isRSA, checkPSS},
	{"PS512", crypto.SHA512, isRSA, checkPSS},
	{"ES256", crypto.SHA256, isOn(elliptic.P256()), checkECDSA},
	{"ES384", crypto.SHA384, isOn(elliptic.P384()), checkECDSA},
	{"ES512", crypto.SHA512, isOn(elliptic.P521()), checkECDSA},
	{"EdDSA", 0, isEd25519, checkEd25519},
	{"Ed25519", 0, isEd25519, checkEd25519}, // RFC 9864
}

func find(name string) *algorithm {
	i := slices.IndexFunc(algorithms, func(a algorithm) bool { return a.name == name })
	if i < 0 {
		return nil
	}
	return &algorithms[i]
}

// Known reports whether there is an algorithm of that name.
func Known(name string) bool { return find(name) != nil }

func isSecret(least int) func(any) bool {
	return func(material any) bool {
		secret, ok := material.([]byte)
		return ok && len(secret) >= least
	}
}

func isRSA(material any) bool {
	_, ok := material.(*rsa.PublicKey)
	return ok
}

func isOn(curve elliptic.Curve) func(any) bool {
	return func(material any) bool {
		key, ok := material.(*ecdsa.PublicKey)
		return ok && key.Curve == curve
	}
}

func isEd25519(material any) bool {
	_, ok := material.(ed25519.PublicKey)
	return ok
}

func sum(h crypto.Hash, message []byte) []byte {
	d := h.New()
	d.Write(message)
	return d.Sum(nil)
}

func checkHMAC(h crypto.Hash, material any, message, signature []byte) bool {
	mac := hmac.New(h.New, material.([]byte))
	mac.Write(message)
	return hmac.Equal(mac.Sum(nil), signature)
}

func checkPKCS1(h crypto.Hash, material any, message, signature []byte) bool {
	return rsa.VerifyPKCS1v15(material.(*rsa.PublicKey), h, sum(h, message), signature) == nil
}

func checkPSS(h crypto.Hash, material any, message, signature []byte) bool {
	options := rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
	return rsa.VerifyPSS(material.(*rsa.PublicKey), h, sum(h, message), signature, &options) == nil
}

// checkECDSA takes r and s one after the other, as RFC 7518 and RFC 9421 have
// them, not the ASN.1 of certificates.
func checkECDSA(h crypto.Hash, material any, message, signature []byte) bool {
	key := material.(*ecdsa.PublicKey)
	size := (key.Curve.Params().BitSize + 7) / 8
	if len(signature) != 2*size {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
	return ecdsa.Verify(key, sum(h, message), r, s)
}

func checkEd25519(_ crypto.Hash, material any, message, signature []byte) bool {
	return ed25519.Verify(material.(ed25519.PublicKey), message, signature)
}

// nanoseconds is about what one check takes: measured, see the benchmark.
func nanoseconds(material any, message int) int64 {
	const perByte = 2
	n := int64(message) * perByte
	switch key := material.(type) {
	case *rsa.PublicKey:
		bits := int64(key.N.BitLen())
		return n + 40_000*bits/2048*bits/2048
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return n + 90_000
		case elliptic.P384():
			return n + 600_000
		}
		return n + 2_000_000
	case ed25519.PublicKey:
		return n + 70_000
	}
	return n + 3_000
}

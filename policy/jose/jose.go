// Package jose checks signatures and JSON Web Tokens (RFC 7515, 7517, 7519),
// with the keys and by the rules that an operator has given.
//
//	keys as JWK, JWK set or PEM ─▶ Keys ─▶ Verifier ─▶ Open ─▶ Verify ─▶ At(now)
//	         once                             rules    bounds  signature  times
//
// # What a signature is worth (RFC 8725)
//
// The key decides which algorithms there are, and what a token says about itself
// only chooses among them: there is no "none", and an RSA key is never taken for
// an HMAC secret. A token with critical extensions is refused, since none is
// understood. A token that is no JWS in compact form is refused. A claim is read
// by its exact name; a member that is there twice makes a token refused, since
// others might read the other one.
//
// Secrets shorter than their hash, RSA keys below 2048 bits, and private keys
// where public ones belong are refused when the keys are read.
//
// # What it costs
//
// Everything is bounded: keys, tokens, how many keys are tried. [Opened.Nanoseconds]
// and [Key.Nanoseconds] say what a check is about to take, for hosts that make
// someone pay for it.
package jose

// Package consumer is what the policies that ask who calls have in common: how the
// service is told, what an anonymous caller may do, and how a refusal reads.
package consumer

import (
	"errors"
	"strings"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// Config is a part of their configurations.
type Config struct {
	// ConsumerHeader tells the service who calls. What a client claims in it is
	// removed.
	ConsumerHeader string `json:"consumerHeader" about:"tells the service who calls; what a client claims in it is removed"`
	// Optional lets requests pass that have no credentials at all, without a consumer.
	// Wrong ones are refused in any case.
	Optional bool `json:"optional" about:"lets requests pass that have no credentials at all, without a consumer"`
}

// Default is x-consumer, and no anonymous callers.
func Default() Config { return Config{ConsumerHeader: "x-consumer"} }

// Check says what is wrong with it.
func (c Config) Check() error {
	if err := CheckHeader(c.ConsumerHeader); err != nil {
		return errors.New("consumerHeader: " + err.Error())
	}
	return nil
}

// CheckHeader refuses what is no field name (RFC 9110, section 5.1).
func CheckHeader(name string) error {
	const marks = "!#$%&'*+-.^_`|~"
	for _, c := range []byte(name) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(marks, c) >= 0) {
			return errors.New("\"" + name + "\" is not a header name")
		}
	}
	if name == "" {
		return errors.New("must not be empty")
	}
	return nil
}

// Known tells the service who calls. A name that no field can have is left out, and
// so is what the client has claimed.
func (c Config) Known(r *sdk.Request, name string) {
	if Sendable(name) {
		r.Header.Set(c.ConsumerHeader, name)
		return
	}
	r.Header.Del(c.ConsumerHeader)
}

// Anonymous lets a request pass that has no credentials.
func (c Config) Anonymous(r *sdk.Request) sdk.Action {
	r.Header.Del(c.ConsumerHeader)
	return sdk.Continue
}

// Sendable reports whether a value can be a field's.
func Sendable(value string) bool {
	for i := range len(value) {
		if value[i] < ' ' && value[i] != '\t' || value[i] == 0x7f {
			return false
		}
	}
	return value != "" && value[0] != ' ' && value[len(value)-1] != ' '
}

// Unauthenticated is the problem of who did not say who they are.
func Unauthenticated(title, detail string) sdk.Problem {
	return sdk.Problem{Status: 401, Type: "urn:weir:problem:unauthenticated", Title: title, Detail: detail}
}

// Forbidden is the problem of who may not do this.
func Forbidden(title, detail string) sdk.Problem {
	return sdk.Problem{Status: 403, Type: "urn:weir:problem:forbidden", Title: title, Detail: detail}
}

// Broken is the answer where the host could not be asked: nobody passes.
func Broken(x *sdk.Exchange, err error) sdk.Action {
	sdk.Errorf("check credentials: %v", err)
	return x.Refuse(sdk.Problem{Status: 500, Type: "urn:weir:problem:policy", Title: "The credentials cannot be checked"})
}

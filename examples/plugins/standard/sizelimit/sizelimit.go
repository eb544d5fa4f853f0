// Package sizelimit is a policy that refuses requests whose body is too large.
//
//	config: {maxBytes: 1048576}
//
// A body that says how long it is is refused before a byte of it is read; any other
// as soon as it is longer. Services then see a request that ends early, and must not
// take it for whole: with hold the service is asked only when all of the body is
// there, as far as the proxy holds back bodies at all (1 MiB).
package sizelimit

import (
	"errors"
	"strconv"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// Plugin is the policy.
func Plugin() sdk.Plugin { return sdk.Define(newLimit) }

type config struct {
	MaxBytes       int64 `json:"maxBytes" about:"of the body"`
	LengthRequired bool  `json:"lengthRequired" about:"refuses bodies without a Content-Length"`
	Hold           bool  `json:"hold" about:"asks the service only when all of the body is there"`
}

func (c *config) Default() { c.MaxBytes = 1 << 20 }

func (c *config) Validate() error {
	const held = 1 << 20
	switch {
	case c.MaxBytes <= 0:
		return errors.New("maxBytes: must be more than 0")
	case c.Hold && c.MaxBytes > held:
		return errors.New("hold: no more than 1 MiB is held back, so maxBytes must be at most 1048576")
	}
	return nil
}

type limit struct {
	config   config
	tooLarge sdk.Problem
	unknown  sdk.Problem
}

func newLimit(c config) (sdk.Handler, error) {
	most := strconv.FormatInt(c.MaxBytes, 10)
	l := limit{
		config: c,
		tooLarge: sdk.Problem{Status: 413, Type: "urn:weir:problem:content-too-large", Title: "The request is too large",
			Detail: "Its body may have no more than " + most + " bytes."},
		unknown: sdk.Problem{Status: 411, Type: "urn:weir:problem:length-required", Title: "The request does not say how long it is",
			Detail: "Send a Content-Length."},
	}
	if c.LengthRequired && !c.Hold {
		return &heads{l}, nil // no body need be looked at
	}
	return &bodies{heads{l}}, nil
}

type heads struct{ limit }

func (l *heads) OnRequest(r *sdk.Request) sdk.Action { return l.head(r) }

func (l *limit) head(r *sdk.Request) sdk.Action {
	if r.End {
		return sdk.Continue
	}
	length := r.Header.Get("content-length")
	if length == "" {
		if l.config.LengthRequired {
			return r.Refuse(l.unknown)
		}
		return sdk.Continue
	}
	if n, err := strconv.ParseInt(length, 10, 64); err != nil || n > l.config.MaxBytes {
		return r.Refuse(l.tooLarge)
	}
	return sdk.Continue
}

type bodies struct{ heads }

// seen is how much of a body has come.
type seen struct{ bytes int64 }

func (l *bodies) OnRequest(r *sdk.Request) sdk.Action {
	action := l.head(r)
	if action != sdk.Continue || r.End {
		return action
	}
	if l.config.Hold {
		return sdk.Hold
	}
	if r.Header.Get("content-length") == "" {
		r.State = &seen{}
	}
	return sdk.Continue
}

func (l *bodies) OnRequestBody(r *sdk.Request) sdk.Action {
	if l.config.Hold { // what is shown is all that has come
		if int64(r.Body.Len()) > l.config.MaxBytes {
			return r.Refuse(l.tooLarge)
		}
		return sdk.Hold
	}
	s, ok := r.State.(*seen)
	if !ok {
		return sdk.Continue // it has said how long it is, which its codec holds it to
	}
	if s.bytes += int64(r.Body.Len()); s.bytes > l.config.MaxBytes {
		return r.Refuse(l.tooLarge)
	}
	return sdk.Continue
}

// Package jwks has the keys of an issuer that publishes them at a URL: fetched once for
// all sandboxes of a proxy, kept up, and kept while they cannot be fetched.
//
//	handler is made, tick, unknown key ─▶ claim ─▶ [discovery ─▶] key set ─▶ checked ─▶ shared data
//	         any sandbox                   one                                             │
//	a request: the newest keys, or waits until there are some ◀────────────────────────────┘
//
// # What to rely on
//
// One sandbox fetches, whichever claims it in the shared data. A set that cannot be
// fetched or read changes nothing: the last good one is used for keep seconds more. It
// is tried again after one second, then two, and so on, and a reason is logged once.
//
// A token that is signed with an unknown key makes the set be fetched, at most once in
// ten seconds, however many such tokens there are: whoever makes them up gains nothing.
//
// The keys are public: secrets among them are passed over.
package jwks

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/url"
	"time"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

const (
	// cooldown is what passes at least between two times that unknown keys make the
	// set be fetched.
	cooldown = 10 * time.Second
	// slack is what a claim outlasts the calls by.
	slack = time.Second
	// longest is the longest time between two tries.
	longest = time.Minute
	// maxReason is how much is kept of why a try failed.
	maxReason = 256
	// tick is how often is looked whether keys are due.
	tick = time.Second
)

// Source is where keys come from.
type Source struct {
	config Config
	key    string // of the state, in the shared data
	source uint32
	// use takes a new key set, or says what is wrong with it.
	use func(set string) error
	// what use has taken.
	seen       uint32 // the version of the state
	generation uint32
	fetched    int64
	// outdated: the policy has other keys by now, and this is a sandbox of before.
	outdated bool
}

// New makes a source, and has the keys fetched if nobody has done so yet.
func New(c Config, use func(set string) error) *Source {
	policy, _ := sdk.Property("plugin_name")
	from := fnv.New32a()
	fmt.Fprintf(from, "%s\x00%s\x00%s", c.Service, c.URL, c.Issuer)
	s := &Source{config: c, key: "weir.jwks/" + policy, source: from.Sum32(), use: use}
	sdk.SetTick(tick)
	s.Tick()
	return s
}

func (s *Source) timeout() time.Duration {
	d := time.Duration(s.config.Timeout) * time.Second
	if s.config.Issuer != "" {
		d *= 2 // two calls
	}
	return d
}

// Tick fetches the keys when they are due.
func (s *Source) Tick() {
	if s.outdated {
		return
	}
	st, version, err := s.load()
	now := sdk.NowNanos()
	due := st.fetched + int64(time.Duration(s.config.Refresh)*time.Second)
	if err != nil || st.busy > now || st.retry > now || st.generation != 0 && due > now {
		return
	}
	if s.claim(st, version, now) {
		s.fetch()
	}
}

// Ready takes up the newest keys, and reports whether there are any that are good.
func (s *Source) Ready() bool {
	value, version, err := sdk.GetShared(s.key)
	if err != nil {
		return false
	}
	switch {
	case version == s.seen:
	case s.generation != 0 && foreign(value, s.source):
		s.seen, s.outdated = version, true
	default:
		s.take(readState(value, s.source), version)
	}
	keep := int64(time.Duration(s.config.Keep) * time.Second)
	return s.generation != 0 && sdk.NowNanos() < s.fetched+keep
}

// take takes up the keys of a state.
func (s *Source) take(st state, version uint32) {
	if st.generation != s.generation && st.generation != 0 {
		set, _, err := sdk.GetShared(s.key + "/keys")
		if err == nil {
			err = s.use(string(set))
		}
		if err != nil {
			sdk.Errorf("keys of %s: %v", s.config.Service, err) // they were good when they were stored
			return
		}
	}
	s.seen, s.generation, s.fetched = version, st.generation, st.fetched
}

// Await has a request wait until there are keys, and then calls then.
func (s *Source) Await(r *sdk.Request, then func(ready bool) sdk.Action) sdk.Action {
	return s.await(r, time.Duration(s.config.Wait)*time.Second, then)
}

func (s *Source) await(r *sdk.Request, left time.Duration, then func(bool) sdk.Action) sdk.Action {
	if s.Ready() {
		return then(true)
	}
	if left <= 0 {
		return then(false)
	}
	r.Detach(s.Tick)
	st, version, err := s.load()
	if err != nil {
		return then(false)
	}
	until, now := max(st.busy, st.retry), sdk.NowNanos()
	most := min(max(time.Duration(until-now), time.Millisecond), left)
	return r.WaitShared(s.key, version, most, func(changed bool) sdk.Action {
		if changed { // which says nothing of how long it took
			return s.await(r, left-time.Duration(max(sdk.NowNanos()-now, int64(time.Millisecond))), then)
		}
		return s.await(r, left-most, then)
	})
}

// Renew has the keys fetched again because a token is signed with one that is not known,
// and then calls then; if that was done just now, at once, with false.
func (s *Source) Renew(r *sdk.Request, then func(renewed bool) sdk.Action) sdk.Action {
	st, version, err := s.load()
	now := sdk.NowNanos()
	switch {
	case err != nil:
		return then(false)
	case version != s.seen && s.newer():
		return then(true)
	case s.outdated:
		return then(false)
	case st.busy <= now:
		if now < st.began+int64(cooldown) || st.retry > now || !s.claim(st, version, now) {
			return then(false)
		}
		r.Detach(s.fetch)
		if st, version, err = s.load(); err != nil {
			return then(false)
		}
	}
	most := min(time.Duration(s.config.Wait)*time.Second, max(time.Duration(st.busy-now), 0))
	return r.WaitShared(s.key, version, most, func(changed bool) sdk.Action { return then(changed && s.newer()) })
}

// newer takes up the newest keys, and reports whether there were any.
func (s *Source) newer() bool {
	before := s.generation
	return s.Ready() && s.generation != before
}

// fetch asks for the keys. This sandbox has claimed it.
func (s *Source) fetch() {
	if s.config.Issuer == "" {
		s.get(s.config.URL, s.keys)
		return
	}
	s.get(s.config.Issuer+"/.well-known/openid-configuration", s.discovered)
}

// get asks for a document, and tells then of it.
func (s *Source) get(at string, then func(document []byte) error) {
	u, err := place(at)
	if err != nil {
		s.failed(err)
		return
	}
	err = sdk.Send(sdk.Call{
		Service: s.config.Service, Authority: u.Host, Path: u.RequestURI(),
		Header:  []sdk.Field{{Name: "accept", Value: "application/json"}},
		Timeout: time.Duration(s.config.Timeout) * time.Second,
	}, func(reply *sdk.Reply) {
		if err := s.answered(u, reply, then); err != nil {
			s.failed(err)
		}
	})
	if err != nil {
		s.failed(err)
	}
}

func (s *Source) answered(u *url.URL, reply *sdk.Reply, then func([]byte) error) error {
	switch {
	case reply.Err != nil:
		return reply.Err
	case reply.Status() != 200:
		return fmt.Errorf("%s is answered %d", u, reply.Status())
	case reply.Size() > s.config.MaxSize:
		return fmt.Errorf("%s has %d bytes, and maxBytes is %d", u, reply.Size(), s.config.MaxSize)
	}
	return then(reply.Body())
}

// discovered reads what an issuer says of itself (OpenID Connect Discovery 1.0).
func (s *Source) discovered(document []byte) error {
	var about struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(document, &about); err != nil {
		return errors.New("what the issuer says of itself is not JSON")
	}
	if about.Issuer != s.config.Issuer {
		return fmt.Errorf("the issuer says that it is %q", about.Issuer)
	}
	issuer, err := place(s.config.Issuer)
	if err != nil {
		return err
	}
	keys, err := place(about.Keys)
	if err != nil {
		return fmt.Errorf("jwks_uri: %w", err)
	}
	if keys.Host != issuer.Host {
		return fmt.Errorf("the keys are at %s, which is another service: give its url, not the issuer", keys.Host)
	}
	s.get(about.Keys, s.keys)
	return nil
}

// keys stores a key set that can be used.
func (s *Source) keys(document []byte) error {
	set := string(document)
	old, _, err := sdk.GetShared(s.key + "/keys")
	if err != nil {
		return err
	}
	st, _, err := s.load()
	if err != nil {
		return err
	}
	fresh := st.generation == 0 || string(old) != set
	if fresh {
		if err := s.use(set); err != nil {
			return err
		}
		if err := sdk.SetShared(s.key+"/keys", document, sdk.Always); err != nil {
			return err
		}
	}
	now := sdk.NowNanos()
	if st.why != "" {
		sdk.Infof("the keys of %s are there again", s.config.Service)
	}
	s.conclude(func(st *state) {
		if fresh {
			st.generation++
		}
		st.fetched, st.failures, st.retry, st.why = now, 0, 0, ""
	})
	return nil
}

// failed notes that keys could not be fetched. A reason is logged once.
func (s *Source) failed(err error) {
	why := err.Error()
	why = why[:min(len(why), maxReason)]
	if st, _, err := s.load(); err == nil && st.why != why {
		sdk.Warnf("keys of %s cannot be fetched: %s", s.config.Service, why)
	}
	now := sdk.NowNanos()
	s.conclude(func(st *state) {
		pause := min(time.Second<<min(st.failures, 10), longest)
		st.failures++
		st.retry = now + int64(pause)
		st.why = why
	})
}

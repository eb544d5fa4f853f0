// Package once has a question asked once, however many requests of however many
// sandboxes want its answer, and keeps the answers for a while.
//
//	a request ─▶ kept? ─▶ then
//	             asked just now by another? ─▶ wait ─▶ kept? …
//	             claim a slot ─▶ ask ─▶ keep ─▶ those who wait
//
// Answers are kept in the proxy's shared data, in a hash table of a fixed number of slots,
// since keys cannot be deleted there: what a policy keeps is bounded, whatever it is
// asked. Where there is no room the answer is lost that would end first.
package once

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"time"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// Answer is what is kept.
type Answer struct {
	// Failed: the question could not be asked. Text then says why.
	Failed bool
	// Lasts is how long it is good.
	Lasts time.Duration
	// Spare is how much longer it is used if the question cannot be asked then.
	Spare time.Duration
	Text  string
}

// Cache has answers.
type Cache struct {
	// Name is that of its keys, and differs from any other's of the tenant.
	Name  string
	Slots uint32
	// Config is a digest of what answers depend on beside the question.
	Config uint32
	// Timeout is how long asking takes at most, and a request waits.
	Timeout time.Duration
}

const (
	// neighbours is how many slots one question may be kept in.
	neighbours = 4
	// tries is how often an answer is looked for that others have driven out meanwhile.
	tries = 4
	// pause is how long a question is not asked again that could not be asked.
	pause = time.Second
)

// ErrCrowded says that there is no answer because too many others are being asked for.
var ErrCrowded = errors.New("too many questions are asked at once")

// Ask tells then the answer to the question of that digest. If there is none that is
// good, ask is called, once for all who want to know, and tells the answer to done. It
// makes its calls by sdk.Send.
func (c *Cache) Ask(r *sdk.Request, digest string, ask func(done func(Answer)), then func(Answer) sdk.Action) sdk.Action {
	return c.look(r, digest, tries, ask, then)
}

func (c *Cache) look(r *sdk.Request, digest string, left int, ask func(done func(Answer)), then func(Answer) sdk.Action) sdk.Action {
	if left == 0 {
		return then(Answer{Failed: true, Text: ErrCrowded.Error()})
	}
	key, s, version, err := c.find(digest)
	now := sdk.NowNanos()
	switch {
	case err != nil:
		return then(Answer{Failed: true, Text: err.Error()})
	case s.answers(digest, now):
		return then(s.answer())
	case !s.asks(digest, now):
		if s, err = c.claim(r, key, s, version, digest, now, ask); err == nil {
			break
		}
		if errors.Is(err, sdk.ErrConflict) {
			return c.look(r, digest, left-1, ask, then)
		}
		return then(Answer{Failed: true, Text: err.Error()})
	}
	// Somebody is asking, maybe on behalf of this request.
	if _, version, err = sdk.GetShared(key); err != nil {
		return then(Answer{Failed: true, Text: err.Error()})
	}
	if _, s, _, err := c.find(digest); err == nil && s.answers(digest, now) {
		return then(s.answer())
	}
	return r.WaitShared(key, version, time.Duration(max(s.until-now, 0)), func(bool) sdk.Action {
		return c.look(r, digest, left-1, ask, then)
	})
}

// claim takes a slot for a question, and has it asked.
func (c *Cache) claim(r *sdk.Request, key string, s slot, version uint32, digest string, now int64, ask func(done func(Answer))) (slot, error) {
	claimed := slot{digest: digest, config: c.Config, asking: true, until: now + int64(c.Timeout+pause)}
	if s.digest == digest && s.until+s.spare > now {
		claimed.kept, claimed.keptUntil, claimed.text = true, s.until+s.spare, s.text
	}
	if err := sdk.SetShared(key, claimed.append(nil), version); err != nil {
		return s, err
	}
	r.Detach(func() { ask(func(a Answer) { c.keep(key, digest, a) }) })
	return claimed, nil
}

// keep stores an answer, unless its slot was given to another question.
func (c *Cache) keep(key, digest string, a Answer) {
	now := sdk.NowNanos()
	err := sdk.UpdateShared(key, func(old []byte) []byte {
		s := readSlot(old, c.Config)
		switch {
		case s.digest != digest:
			return old
		case a.Failed && s.kept && s.keptUntil > now:
			s.until = min(now+int64(pause), s.keptUntil)
			s.spare = s.keptUntil - s.until
		case a.Failed:
			s = slot{until: now + int64(pause), failed: true, text: a.Text}
		default:
			s = slot{until: now + int64(a.Lasts), spare: int64(a.Spare), text: a.Text}
		}
		s.digest, s.config, s.asking, s.kept, s.keptUntil = digest, c.Config, false, false, 0
		return s.append(nil)
	})
	if err != nil {
		sdk.Errorf("keep an answer: %v", err)
	}
}

// find returns the question's slot, or the one that is given to it.
func (c *Cache) find(digest string) (key string, s slot, version uint32, err error) {
	const hash = 4
	if len(digest) < hash || c.Slots == 0 {
		return "", s, 0, errors.New("the question has no digest")
	}
	first, now, least := binary.LittleEndian.Uint32([]byte(digest[:hash])), sdk.NowNanos(), int64(math.MaxInt64)
	for i := range uint32(neighbours) {
		at := c.Name + "/" + strconv.FormatUint(uint64((first+i)%c.Slots), 10)
		value, v, err := sdk.GetShared(at)
		if err != nil {
			return "", s, 0, err
		}
		found := readSlot(value, c.Config)
		if found.digest == digest {
			return at, found, v, nil
		}
		worth := found.until
		switch {
		case found.asking && found.until > now:
			continue
		case found.until <= now:
			worth = 0
		}
		if worth < least {
			key, s, version, least = at, found, v, worth
		}
	}
	if key == "" {
		return "", s, 0, ErrCrowded
	}
	return key, s, version, nil
}

package identity

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/weirmesh/weir/internal/pause"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

const (
	renewRetryMin = time.Second
	renewRetryMax = 5 * time.Minute
)

// Renewer gets fresh credentials for a certificate request. It returns nil when
// it has installed them itself.
type Renewer func(ctx context.Context, csr []byte) (*weirv1.Credentials, error)

// Maintain keeps the certificate fresh until ctx ends: it renews at half of
// its life, sooner or later by a tenth so that a cluster started at once does
// not renew at once, or when RenewSoon is called, and tries again, ever more
// slowly, when that fails.
func (i *Identity) Maintain(ctx context.Context, log *slog.Logger, renew Renewer) {
	for {
		if !i.due(ctx) {
			return
		}
		for wait := renewRetryMin; ; wait = min(2*wait, renewRetryMax) {
			err := i.renew(ctx, renew)
			if err == nil {
				log.Info("certificate renewed", "id", i.ID().String(), "expires", i.NotAfter())
				break
			}
			if ctx.Err() != nil {
				return
			}
			level := slog.LevelWarn
			if time.Now().After(i.NotAfter()) {
				level = slog.LevelError
			}
			log.Log(ctx, level, "certificate not renewed", "error", err, "expires", i.NotAfter())
			if !pause.For(ctx, wait/2+rand.N(wait)) {
				return
			}
		}
	}
}

// RenewSoon has Maintain renew now rather than at half of the certificate's
// life: the roots have changed, or the names that a server is reached under.
func (i *Identity) RenewSoon() {
	select {
	case i.soon <- struct{}{}:
	default: // it is to renew already
	}
}

// glance is how often Maintain looks at the clock: a machine that slept, or
// whose clock was set, is not where a timer thinks it is.
const glance = time.Minute

// due waits until it is time to renew, and tells whether ctx still runs.
func (i *Identity) due(ctx context.Context) bool {
	for {
		wait := time.Until(i.renewAt())
		if wait <= 0 {
			return ctx.Err() == nil
		}
		t := time.NewTimer(min(wait, glance))
		select {
		case <-t.C:
		case <-i.soon:
			t.Stop()
			return true
		case <-ctx.Done():
			t.Stop()
			return false
		}
	}
}

func (i *Identity) renew(ctx context.Context, renew Renewer) error {
	csr, err := i.Request()
	if err != nil {
		return err
	}
	fresh, err := renew(ctx, csr)
	if err != nil {
		return err
	}
	if fresh != nil {
		if err := i.Install(fresh); err != nil {
			return err
		}
	}
	if !i.renewAt().After(time.Now()) {
		return errors.New("renew certificate: the fresh one is past half of its life: compare the clocks")
	}
	return nil
}

func (i *Identity) renewAt() time.Time {
	c := i.now.Load()
	if c == nil || c.stale {
		return time.Now()
	}
	leaf := c.certificate.Leaf
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	// From the serial number, so that the moment stays the same when asked again.
	tenth := life / 10
	first := leaf.SerialNumber.FillBytes(make([]byte, 20))[4] & 0x7f // of 16, and 20 are the most
	smear := time.Duration(first) * tenth / 128
	return leaf.NotBefore.Add(life/2 - tenth/2 + smear)
}

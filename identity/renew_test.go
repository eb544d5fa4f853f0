package identity

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func TestMaintainRenewsAtHalfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistrar(t)
		edge := enrolled(t, r, RoleEdge, "e1")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var renewals int
		go edge.Maintain(ctx, slog.New(slog.DiscardHandler), func(ctx context.Context, csr []byte) (*weirv1.Credentials, error) {
			renewals++
			if left := time.Until(edge.NotAfter()); left < 10*time.Hour || left > 14*time.Hour {
				t.Errorf("renewed with %s left, want about half of %s", left, LeafLifetime)
			}
			return r.Renew(ctx, edge.ID(), edge.key.Public(), csr)
		})
		time.Sleep(10 * 24 * time.Hour)
		synctest.Wait()
		if renewals < 17 || renewals > 24 {
			t.Errorf("%d renewals in ten days, want about twenty", renewals)
		}
		if _, err := edge.Verify(chainOf(t, edge)); err != nil {
			t.Error(err)
		}
	})
}

func TestMaintainOutlivesAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistrar(t)
		edge := enrolled(t, r, RoleEdge, "e1")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		back := time.Now().Add(72 * time.Hour)
		var refused int
		go edge.Maintain(ctx, slog.New(slog.DiscardHandler), func(ctx context.Context, csr []byte) (*weirv1.Credentials, error) {
			if time.Now().Before(back) {
				refused++
				return nil, errors.New("no server")
			}
			return r.Renew(ctx, edge.ID(), edge.key.Public(), csr)
		})
		time.Sleep(72*time.Hour + 2*renewRetryMax)
		synctest.Wait()
		if _, err := edge.Verify(chainOf(t, edge)); err != nil {
			t.Errorf("after the servers came back: %v", err)
		}
		// Sixty hours without a server: every few minutes, not every second.
		if refused > 2000 {
			t.Errorf("%d tries during the outage", refused)
		}
	})
}

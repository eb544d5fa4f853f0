//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/weirmesh/weir/test/linear"
)

// require stops the load and demands of it what every scenario does.
func (c *cluster) require(l *load) {
	c.t.Helper()
	l.stop()
	c.awaitVoters()
	c.converged(l)
	l.readAll()
	counts := l.history.Counts()
	c.t.Logf("%d members, %+v; calls failed: %v", len(c.all()), counts, l.failures())
	if counts.Applied < enough || counts.Reads < enough {
		c.t.Errorf("the load did too little to tell anything: %+v", counts)
	}
	l.history.Require(c.t, patience)
	if err := errors.Join(l.strange[:min(len(l.strange), 5)]...); err != nil {
		c.t.Errorf("%d errors are none that the API promises, such as: %v", len(l.strange), err)
	}
	c.requireSound()
}

// converged waits until all members have the same by their own state, and
// demands that it holds all that was acknowledged.
func (c *cluster) converged(l *load) {
	c.t.Helper()
	var agreed map[string]entry
	await(c.t, "members to agree", func(ctx context.Context) (err error) {
		if agreed, err = c.all()[0].list(ctx, false); err != nil {
			return err
		}
		for _, m := range c.all() {
			own, err := m.list(ctx, true)
			if err != nil {
				return err
			}
			if key, differs := difference(agreed, own); differs {
				return fmt.Errorf("%s has %v of %s, %v is agreed", m.name, own[key], key, agreed[key])
			}
		}
		return nil
	})
	var lost []string
	for key, value := range l.created {
		if agreed[key].value != value {
			lost = append(lost, fmt.Sprintf("%s is %q, not %q", key, agreed[key].value, value))
		}
	}
	if len(lost) > 0 {
		c.t.Errorf("of %d acknowledged writes %d are lost, such as: %v", len(l.created), len(lost), lost[:min(len(lost), 5)])
	}
}

func difference(a, b map[string]entry) (key string, differs bool) {
	for key := range a {
		if a[key] != b[key] {
			return key, true
		}
	}
	for key := range b {
		if _, found := a[key]; !found {
			return key, true
		}
	}
	return "", false
}

// readAll adds to the history a read of every key at every member.
func (l *load) readAll() {
	l.c.t.Helper()
	for i, m := range l.c.all() {
		var reads map[string]*linear.ReadCall
		await(l.c.t, "all keys from "+m.name, func(ctx context.Context) error {
			reads = map[string]*linear.ReadCall{}
			for key := range l.keys {
				reads[key] = l.history.Read(clients+i, key)
			}
			found, err := m.list(ctx, false)
			for key, call := range reads {
				if err != nil {
					call.Failed()
				} else {
					call.Saw(found[key].value)
				}
			}
			return err
		})
	}
}

// requireSound demands that no process has said that something is wrong in it.
func (c *cluster) requireSound() {
	c.t.Helper()
	for _, m := range c.all() {
		output := m.output()
		for _, alarm := range []string{"panic", "fatal error:", "DATA RACE", "SIGSEGV", "SIGBUS"} {
			if strings.Contains(output, alarm) {
				c.t.Errorf("%s has printed %q", m.name, alarm)
			}
		}
	}
}

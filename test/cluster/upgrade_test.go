//go:build linux

package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Servers of an earlier version, which ends on a kind of command that it does not
// know, are upgraded one by one. What needs the new kind is done without it, with a
// word about that, before the last of them is; then it is done, and who does not know
// the kind does not come in any more.
func TestServersAreUpgradedOneByOne(t *testing.T) {
	inFull(t)
	older := buildTagged(t, "weir_kind14")
	c := form(t, 3, options{program: older, spares: 1})
	load := c.load()
	load.goesOn()
	c.require(load)
	file := filepath.Join(t.TempDir(), "backup")
	c.must(c.command("cluster", "backup", file))
	// A kind of resource that only the new version has.
	trust := filepath.Join(t.TempDir(), "trust.yaml")
	if err := os.WriteFile(trust, []byte("apiVersion: weir/v1\nkind: PluginTrust\nmetadata: {name: default}\nspec: {requireSignatures: true}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused := func() {
		t.Helper()
		await(t, "a PluginTrust to be refused in words", func(context.Context) error {
			_, err := c.command("apply", "-f", trust)
			if err == nil {
				t.Fatal("a PluginTrust is stored beside a member that would end on it")
			}
			if !strings.Contains(err.Error(), "must be upgraded first") {
				return err // the cluster may be between two leaders
			}
			return nil
		})
	}
	const without = "has no revision of its own"
	restored := func() (warned int) {
		t.Helper()
		c.try("cluster", "restore", "--force", file)
		for _, m := range c.all() {
			warned += strings.Count(m.output(), without)
		}
		return warned
	}

	warned := restored()
	if warned != 1 {
		t.Errorf("a cluster of the earlier version has said %d times what it does without", warned)
	}
	for i, m := range c.all() {
		refused()
		m.program = ""
		m.restart()
		c.awaitVoters()
		last := i == len(c.all())-1
		before := warned
		await(t, "the others to hear of the upgrade", func(context.Context) error {
			before = warned
			if warned = restored(); last && warned > before {
				return errors.New("it is done without the new kind")
			}
			return nil
		})
		if !last && warned == before {
			t.Errorf("with %s upgraded, the new kind was proposed", m.name)
		}
	}
	c.try("apply", "-f", trust)
	if got := c.must(c.command("get", "plugintrust", "-o", "name")); !strings.Contains(got, "default") {
		t.Errorf("got %q", got)
	}
	c.requireSound()

	late := c.member(3)
	late.program = older
	late.join(c.all()[0])
	await(t, "the earlier version to be refused", func(context.Context) error {
		if late.isRunning() {
			return errors.New("it runs")
		}
		return nil
	})
	if got := late.output(); !strings.Contains(got, "upgrade it first") {
		t.Errorf("it says %s", got)
	}
	again := c.load()
	again.goesOn()
	c.require(again)
}

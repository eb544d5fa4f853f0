//go:build linux

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// command runs a verb of weir on the host outside, and returns what it printed.
func (c *cluster) command(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	var admins []string
	for _, m := range c.running() {
		admins = append(admins, m.adminAddress())
	}
	return c.commandAt(ctx, strings.Join(admins, ","), args...)
}

// commandAt does so with the admin API at an address, or several.
func (c *cluster) commandAt(ctx context.Context, admin string, args ...string) (string, error) {
	var out bytes.Buffer
	p := c.outside.Command(ctx, weir(c.t), args...)
	p.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "WEIR_ADMIN=" + admin, "WEIR_TOKEN=" + c.token, "WEIR_CA=" + c.ca}
	p.Stdout = &out
	p.Start()
	if err := p.Wait(ctx); err != nil {
		return out.String(), fmt.Errorf("weir %s: %w: %s", strings.Join(args, " "), err, p.Output())
	}
	return out.String(), nil
}

// must is the output of a command that has to succeed.
func (c *cluster) must(out string, err error) string {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// try runs a command until it succeeds: a cluster may be between two leaders.
func (c *cluster) try(args ...string) {
	c.t.Helper()
	await(c.t, "weir "+strings.Join(args, " "), func(context.Context) error {
		_, err := c.command(args...)
		return err
	})
}

// joinToken makes a token with which one node may join.
func (c *cluster) joinToken(role string, more ...string) (token string) {
	c.t.Helper()
	await(c.t, "a join token", func(context.Context) (err error) {
		token, err = c.command(append([]string{"join-token", "create", "--role", role, "--ttl", time.Hour.String(), "--uses", "1", "-o", "name"}, more...)...)
		return err
	})
	return strings.TrimSpace(token)
}

// roles are the members as `weir cluster members` lists them.
func (c *cluster) roles() (map[string]string, error) {
	out, err := c.command("cluster", "members", "-o", "json")
	if err != nil {
		return nil, err
	}
	var members []struct{ Name, Role string }
	if err := json.Unmarshal([]byte(out), &members); err != nil {
		return nil, fmt.Errorf("read members: %w: %s", err, out)
	}
	roles := map[string]string{}
	for _, m := range members {
		roles[m.Name] = m.Role
	}
	return roles, nil
}

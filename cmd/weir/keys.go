package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirmesh/weir/node"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func newKeysCommand(c *client) *cobra.Command {
	return group("keys", "What the cluster seals and signs with", newKeysListCommand(c), newKeysRotateCommand(c),
		newKeysRotateRootCommand(c), newKeysDropCommand(c), newKeysNewCommand())
}

func newKeysListCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List keys and roots, and how far a rotation has come",
		Args:  cobra.NoArgs,
	}
	return answered(c, cmd, view[*weirv1.ClusterKeys]{program: message[*weirv1.ClusterKeys], names: keyNames, table: writeKeys},
		func(cmd *cobra.Command, _ []string, api *session) (*weirv1.ClusterKeys, error) {
			m, err := api.cluster.ListKeys(cmd.Context(), &weirv1.ListKeysRequest{})
			return m.GetKeys(), err
		})
}

func keyNames(k *weirv1.ClusterKeys) []string {
	var names []string
	for _, key := range k.GetKeys() {
		names = append(names, "key/"+key.GetId())
	}
	for _, root := range k.GetRoots() {
		names = append(names, "root/"+root.GetFingerprint())
	}
	return names
}

func writeKeys(cmd *cobra.Command, k *weirv1.ClusterKeys, _ bool) error {
	out := cmd.OutOrStdout()
	var keys, roots [][]string
	for _, key := range k.GetKeys() {
		keys = append(keys, []string{key.GetId(), word(key.GetState().String()), age(key.GetCreateTime()), few(key.GetMissing())})
	}
	if err := writeTable(out, []string{"KEY", "STATE", "AGE", "MISSING ON"}, keys); err != nil {
		return err
	}
	for _, root := range k.GetRoots() {
		roots = append(roots, []string{root.GetFingerprint(), word(root.GetState().String()), age(root.GetNotBefore()),
			root.GetNotAfter().AsTime().Format(time.DateOnly)})
	}
	fmt.Fprintln(out)
	if err := writeTable(out, []string{"ROOT", "STATE", "AGE", "EXPIRES"}, roots); err != nil {
		return err
	}
	for _, r := range k.GetRotations() {
		fmt.Fprintln(out)
		writeRotation(out, r)
	}
	return nil
}

func writeRotation(w io.Writer, r *weirv1.Rotation) {
	fmt.Fprintf(w, "Rotation of the %s, from %s to %s, begun %s ago\n", word(r.GetWhat().String()), r.GetFrom(), r.GetTo(), age(r.GetBeginTime()))
	fmt.Fprintf(w, "Now: %s (%d of %d nodes)\n", r.GetStep(), r.GetDone(), r.GetTotal())
	if len(r.GetWaitingFor()) > 0 {
		fmt.Fprintf(w, "Waiting for: %s\n", strings.Join(r.GetWaitingFor(), ", "))
	}
}

// rotationView is what is shown of a rotation that has begun.
var rotationView = view[*weirv1.Rotation]{
	program: message[*weirv1.Rotation],
	names:   func(r *weirv1.Rotation) []string { return []string{word(r.GetWhat().String()) + "/" + r.GetTo()} },
	table: func(cmd *cobra.Command, r *weirv1.Rotation, _ bool) error {
		writeRotation(cmd.OutOrStdout(), r)
		fmt.Fprintln(cmd.ErrOrStderr(), "it goes on by itself; weir cluster keys list tells how far it is")
		return nil
	},
}

func newKeysRotateCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Seal what is stored with a new key",
		Long: `Seal what is stored with a new key. Every server gets it first; then it seals,
and what the old one had sealed is sealed anew. The old key stays, for backups
that need it, until it is dropped.`,
		Args: cobra.NoArgs,
	}
	return answered(c, cmd, rotationView, func(cmd *cobra.Command, _ []string, api *session) (*weirv1.Rotation, error) {
		m, err := api.cluster.RotateKey(cmd.Context(), &weirv1.RotateKeyRequest{})
		return m.GetRotation(), err
	})
}

func newKeysRotateRootCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate-root",
		Short: "Sign certificates with a new root",
		Long: `Sign certificates with a new root. Every node learns to trust it first; then it
signs, and the old one goes when nothing that it has signed is in use.`,
		Args: cobra.NoArgs,
	}
	return answered(c, cmd, rotationView, func(cmd *cobra.Command, _ []string, api *session) (*weirv1.Rotation, error) {
		m, err := api.cluster.RotateRoot(cmd.Context(), &weirv1.RotateRootRequest{})
		return m.GetRotation(), err
	})
}

func newKeysDropCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drop ID",
		Short: "Forget a key that seals nothing any more",
		Long:  "Forget a key that seals nothing any more. Backups that were taken while it sealed cannot be restored without a copy of it.",
		Args:  cobra.ExactArgs(1),
	}
	return done(c, cmd, "dropped", func(cmd *cobra.Command, args []string, api *session) (string, error) {
		id := strings.TrimPrefix(args[0], "key/")
		_, err := api.cluster.DropKey(cmd.Context(), &weirv1.DropKeyRequest{Id: id})
		return "key/" + id, err
	})
}

func newKeysNewCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "new FILE",
		Short: "Make a keyring file, for servers that found a cluster together",
		Long: `Make a keyring file, for servers that found a cluster together. Copy it, before
the first start, to DATA/keyring of each of them. It needs no server.`,
		Example: "  weir cluster keys new keyring\n  install -m 600 keyring /var/lib/weir/keyring",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := node.NewKeyring(args[0]); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s holds a new key; whoever has it can open what the cluster seals\n", args[0])
			return nil
		},
	}
}

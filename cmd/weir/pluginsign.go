package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/weirmesh/weir/internal/signature"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func newPluginKeygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE",
		Short: "Make a key to sign modules with",
		Long: `Keygen writes a private key (Ed25519, PEM) to a file that only its owner reads,
and the public one beside it, to FILE.pub. What openssl genpkey -algorithm
ed25519 makes does as well.

Whom a tenant trusts is declared: a PluginTrust holds public keys.`,
		Example: "  weir plugin keygen release.key",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			private, public, err := signature.NewKey()
			if err == nil {
				err = writeNew(args[0], private, 0o600)
			}
			if err == nil {
				err = writeNew(args[0]+".pub", public, 0o644)
			}
			if err != nil {
				return fmt.Errorf("make key: %w", err)
			}
			key, err := signature.ParsePublic(public)
			if err != nil {
				return fmt.Errorf("make key: %w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s and %s.pub: %s\n", args[0], args[0], signature.KeyID(key))
			return err
		},
	}
}

// writeNew writes a file that is not there.
func writeNew(file string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

func newPluginSignCommand() *cobra.Command {
	var keys []string
	var out string
	cmd := &cobra.Command{
		Use:   "sign NAME FILE",
		Short: "Sign a module for a name, without a server",
		Long: `Sign writes the signatures of a module under a plugin's name to FILE.sig, which
push takes by --signature: so the key need not be where the push is made. A
signature is good for that name and those bytes only.

What is signed is the text "weir plugin signature v1\nname: NAME\ndigest:
DIGEST\n".`,
		Example: "  weir plugin sign stamp stamp.wasm --key release.key\n  weir plugin push stamp stamp.wasm --signature stamp.wasm.sig",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(keys) == 0 {
				return usagef("name the private key with --key")
			}
			module, err := readModule(args[1])
			if err != nil {
				return err
			}
			var text []byte
			for _, file := range keys {
				key, err := readKeyFile(file, signature.ParsePrivate)
				if err != nil {
					return fmt.Errorf("read --key: %w", err)
				}
				digest := digestOf(module)
				text = append(text, signature.Encode(signature.Detached{Name: args[0], Digest: digest, Signature: signature.Sign(key, args[0], digest)})...)
			}
			if out == "-" {
				_, err = cmd.OutOrStdout().Write(text)
				return err
			}
			if out == "" {
				out = args[1] + ".sig"
			}
			if err := os.WriteFile(out, text, 0o644); err != nil {
				return fmt.Errorf("write signature: %w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s is signed for the name %s\n", out, digestOf(module), args[0])
			return err
		},
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "file of the private key; once for each")
	cmd.Flags().StringVar(&out, "out", "", "file to write, - for standard output (FILE.sig)")
	return cmd
}

func newPluginVerifyCommand() *cobra.Command {
	var keys []string
	var file string
	cmd := &cobra.Command{
		Use:     "verify NAME FILE",
		Short:   "Check the signatures of a module, without a server",
		Example: "  weir plugin verify stamp stamp.wasm --key release.key.pub",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			trust := signature.Trust{Require: true}
			for _, name := range keys {
				public, err := readKeyFile(name, signature.ParsePublics)
				if err != nil {
					return fmt.Errorf("read --key: %w", err)
				}
				for _, key := range public {
					trust.Keys = append(trust.Keys, signature.Key{Name: name, Public: key})
				}
			}
			if len(trust.Keys) == 0 {
				return usagef("name a public key with --key")
			}
			module, err := readModule(args[1])
			if err != nil {
				return err
			}
			if file == "" {
				file = args[1] + ".sig"
			}
			signed, err := readSignatures(file, args[0], digestOf(module))
			if err != nil {
				return err
			}
			var all []signature.Signature
			for _, s := range signed {
				all = append(all, signature.Signature{Key: s.GetKey(), Bytes: s.GetSignature()})
			}
			by, err := trust.Check(args[0], digestOf(module), all)
			if err != nil {
				return fmt.Errorf("verify %s: %w", args[1], err)
			}
			for _, name := range by {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: signed for the name %s by %s\n", args[1], args[0], name)
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "file of public keys, one of which must have signed")
	cmd.Flags().StringVar(&file, "signature", "", "file of the signatures (FILE.sig)")
	return cmd
}

// readKeyFile reads a file of bounded size.
func readKeyFile[K any](file string, parse func([]byte) (K, error)) (key K, err error) {
	f, err := os.Open(file)
	if err != nil {
		return key, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, signature.MaxFile+1))
	if err != nil {
		return key, err
	}
	if key, err = parse(text); err != nil {
		return key, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

// readSignatures reads those of a module. One that says itself that it is for
// something else is a mistake that is better told here.
func readSignatures(file, name, digest string) ([]*weirv1.PluginSignature, error) {
	found, err := readKeyFile(file, signature.Parse)
	if err != nil {
		return nil, fmt.Errorf("read signature: %w", err)
	}
	var all []*weirv1.PluginSignature
	for _, d := range found {
		switch {
		case d.Name != name:
			return nil, fmt.Errorf("read signature: %s is for the name %q, not %q", file, d.Name, name)
		case d.Digest != digest:
			return nil, fmt.Errorf("read signature: %s is for %s; the module is %s", file, d.Digest, digest)
		}
		all = append(all, &weirv1.PluginSignature{Key: d.Key, Signature: d.Bytes})
	}
	return all, nil
}

// signing is how a push comes by signatures.
type signing struct{ keys, files []string }

func (s *signing) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&s.keys, "sign", nil, "file of a private key to sign with; once for each")
	cmd.Flags().StringArrayVar(&s.files, "signature", nil, "file of signatures that weir plugin sign has written")
}

func (s *signing) signatures(name string, module []byte) ([]*weirv1.PluginSignature, error) {
	digest := digestOf(module)
	var all []*weirv1.PluginSignature
	add := func(more ...*weirv1.PluginSignature) {
		for _, m := range more {
			if !slices.ContainsFunc(all, func(a *weirv1.PluginSignature) bool { return a.GetKey() == m.GetKey() }) {
				all = append(all, m)
			}
		}
	}
	for _, file := range s.keys {
		key, err := readKeyFile[ed25519.PrivateKey](file, signature.ParsePrivate)
		if err != nil {
			return nil, fmt.Errorf("read --sign: %w", err)
		}
		made := signature.Sign(key, name, digest)
		add(&weirv1.PluginSignature{Key: made.Key, Signature: made.Bytes})
	}
	for _, file := range s.files {
		read, err := readSignatures(file, name, digest)
		if err != nil {
			return nil, err
		}
		add(read...)
	}
	return all, nil
}

package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
)

func newApplyCommand(c *client) *cobra.Command {
	var files []string
	var dryRun bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Store declarations, all or none",
		Long: `Apply stores the resources of files, of all *.yaml, *.yml and *.json files below
directories, or of standard input, as one transaction. What is stored already
stays as it is. With --wait it returns once every proxy has accepted the change.

A Plugin may bring its module along: as base64 in spec.module, or in a file
modules/DIGITS.wasm beside its own, where the digits are those of its digest.
Such a module is pushed first; a dry run does not push.`,
		Example: "  weir apply -f shop.yaml\n  weir apply -f declarations/ --dry-run\n  weir apply -f shop.yaml --wait=1m",
		Args:    noArguments,
	}
	output := outputFlag(cmd)
	filesFlag(cmd, &files)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, store nothing")
	waitFlag(cmd, &wait)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		items, modules, api, err := c.loadFor(cmd, files)
		if err != nil {
			return err
		}
		if !dryRun {
			if err := pushModules(cmd.Context(), api, modules); err != nil {
				return err
			}
		}
		done, err := api.Apply(cmd.Context(), &weirv1.ApplyRequest{Resources: resourcesOf(items), DryRun: dryRun})
		if err != nil {
			return inFiles(err, items)
		}
		return applied(cmd, api, *output, done, dryRun, wait)
	}
	return cmd
}

func filesFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVarP(files, "filename", "f", nil, "file, directory, or - for standard input; may be repeated")
	_ = cmd.MarkFlagFilename("filename", "yaml", "yml", "json")
}

func waitFlag(cmd *cobra.Command, wait *time.Duration) {
	durationFlag(cmd.Flags(), wait, "wait", 0, "wait until every proxy has accepted it, at most this long")
	cmd.Flags().Lookup("wait").NoOptDefVal = "30s"
}

// noArguments helps those who forget the -f.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		if _, err := time.ParseDuration(args[0]); err == nil && cmd.Flags().Changed("wait") {
			return usagef("unexpected %q; a duration is joined to its flag: --wait=%s", args[0], args[0])
		}
		return usagef("unexpected %q; a file is named with -f: %s -f %s", args[0], cmd.CommandPath(), args[0])
	}
	return nil
}

// applied says what has come of it, and waits until it is so everywhere.
func applied(cmd *cobra.Command, api *session, f format, done *weirv1.ApplyResponse, dryRun bool, wait time.Duration) error {
	if err := writeOutcome(cmd.OutOrStdout(), f, done, dryRun); err != nil {
		return err
	}
	if wait > 0 && !dryRun {
		return waitFor(cmd.Context(), api, done.GetRevision(), wait, cmd.ErrOrStderr())
	}
	return nil
}

func writeOutcome(w io.Writer, f format, done *weirv1.ApplyResponse, dryRun bool) error {
	if f.forPrograms() {
		return writeMessage(w, f, done)
	}
	suffix := ""
	if dryRun {
		suffix = " (dry run)"
	}
	for _, result := range done.GetResults() {
		ref := resource.RefOf(result.GetRef())
		line := shortName(ref)
		if f != formatName {
			line = outcomeLine(ref, strings.ToLower(result.GetOutcome().String())+suffix)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// waitFor returns nil once every connected proxy has accepted a revision, and
// else names those that have not, and why.
func waitFor(ctx context.Context, api weirv1connect.AdminServiceClient, revision uint64, timeout time.Duration, stderr io.Writer) error {
	answer, err := api.WaitRevision(ctx, &weirv1.WaitRevisionRequest{Revision: revision, Timeout: durationpb.New(timeout)})
	if err != nil {
		return fmt.Errorf("revision %d is stored, but waiting for the proxies failed: %w", revision, err)
	}
	var connected int
	var behind, partly, gone []string
	for _, p := range answer.GetProxies() {
		if !p.GetConnected() {
			gone = append(gone, p.GetName())
			continue
		}
		connected++
		switch {
		case p.GetRevision() >= revision && p.GetProblem() != "":
			partly = append(partly, fmt.Sprintf("  %s serves it, but: %s", p.GetName(), p.GetProblem()))
		case p.GetRevision() >= revision:
		case p.GetRefusedRevision() >= revision:
			behind = append(behind, fmt.Sprintf("  %s refused it: %s", p.GetName(), p.GetRefusedReason()))
		default:
			behind = append(behind, fmt.Sprintf("  %s is still at revision %d", p.GetName(), p.GetRevision()))
		}
	}
	switch {
	case !answer.GetDone():
		return fmt.Errorf("revision %d is stored, but not in force everywhere:\n%s", revision, strings.Join(append(behind, partly...), "\n"))
	case len(partly) > 0:
		return fmt.Errorf("revision %d is in force, but not all of it:\n%s", revision, strings.Join(partly, "\n"))
	case connected == 0:
		fmt.Fprintf(stderr, "revision %d is stored; no proxy is connected to accept it\n", revision)
	case connected == 1:
		fmt.Fprintf(stderr, "revision %d is in force on 1 proxy\n", revision)
	default:
		fmt.Fprintf(stderr, "revision %d is in force on %d proxies\n", revision, connected)
	}
	if len(gone) > 0 {
		fmt.Fprintf(stderr, "not waited for, since they are gone: %s (what they last had may still be served)\n", strings.Join(gone, ", "))
	}
	return nil
}

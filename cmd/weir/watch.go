package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/spf13/cobra"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

// retryWatch is the wait before a broken watch is taken up again.
const retryWatch = time.Second

func newWatchCommand(c *client) *cobra.Command {
	var after uint64
	cmd := &cobra.Command{
		Use:   "watch [KIND…]",
		Short: "Print changes as they happen",
		Long: `Watch prints what is there and then each change: its revision, what happened
and to what. It goes on until interrupted; when the connection breaks, it takes
up where it was.`,
		Example: "  weir watch\n  weir watch routes services\n  weir watch -o json",
	}
	output := outputFlag(cmd)
	cmd.Flags().Uint64Var(&after, "after-revision", 0, "only changes after this revision, not what is there")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := &weirv1.WatchRequest{Tenant: c.tenant, AfterRevision: after}
		for _, word := range args {
			kind, err := parseKind(word)
			if err != nil {
				return err
			}
			req.Kinds = append(req.Kinds, kind)
		}
		api, err := c.connect(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		return watch(cmd.Context(), api, req, *output, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return cmd
}

// watch follows until the context ends, which is no failure.
func watch(ctx context.Context, api weirv1connect.AdminServiceClient, req *weirv1.WatchRequest, f format, stdout, stderr io.Writer) error {
	heard := false
	for {
		err := follow(ctx, api, req, func(event *weirv1.WatchResponse) error {
			heard = true
			return writeEvent(stdout, f, event)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case !heard || !worthRetrying(err):
			return err
		}
		fmt.Fprintf(stderr, "the connection broke (%s); trying again\n", sentence(err))
		select {
		case <-time.After(retryWatch):
		case <-ctx.Done():
			return nil
		}
	}
}

func worthRetrying(err error) bool {
	var lost *unreachableError
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeCanceled, connect.CodeInternal, connect.CodeDeadlineExceeded:
		return true
	}
	return errors.As(err, &lost) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// follow hands over the events of one connection, and moves the request on so
// that the next one begins where this one ends.
func follow(ctx context.Context, api weirv1connect.AdminServiceClient, req *weirv1.WatchRequest, event func(*weirv1.WatchResponse) error) error {
	stream, err := api.Watch(ctx, req)
	if err != nil {
		return err
	}
	defer stream.Close()
	for {
		e, err := stream.Receive()
		if err != nil {
			return err
		}
		if err := event(e); err != nil {
			return err
		}
		if e.GetType() == weirv1.WatchResponse_BOOKMARK {
			req.AfterRevision = e.GetRevision()
		}
	}
}

var changeWords = map[weirv1.WatchResponse_Type]string{
	weirv1.WatchResponse_PUT:    "put",
	weirv1.WatchResponse_DELETE: "deleted",
}

// writeEvent prints a line, or a YAML document. Bookmarks and resets are for
// programs.
func writeEvent(w io.Writer, f format, e *weirv1.WatchResponse) error {
	var text bytes.Buffer
	_, change := changeWords[e.GetType()]
	switch {
	case f == formatJSON:
		var indented bytes.Buffer
		if err := manifest.WriteMessageJSON(&indented, e); err != nil {
			return err
		}
		if err := json.Compact(&text, bytes.TrimSpace(indented.Bytes())); err != nil {
			return fmt.Errorf("write event: %w", err)
		}
		text.WriteByte('\n')
	case f == formatYAML:
		text.WriteString("---\n")
		if err := manifest.WriteMessageYAML(&text, e); err != nil {
			return err
		}
	case !change:
		return nil
	case f == formatName:
		fmt.Fprintln(&text, shortName(resource.RefOf(e.GetRef())))
	default:
		fmt.Fprintf(&text, "%d %s\n", e.GetRevision(), outcomeLine(resource.RefOf(e.GetRef()), changeWords[e.GetType()]))
	}
	_, err := w.Write(text.Bytes())
	return err
}

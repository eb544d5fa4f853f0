package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// resident is what the edge and, for comparison, the server have in memory, in bytes.
type resident struct{ edge, server int64 }

// The runtime gives back what a collection has freed bit by bit, in the background:
// memory has settled once it has not fallen for so many seconds.
const (
	settledFor  = 5
	mostSeconds = 60
)

// memory is what is resident once it has settled, with a collection each second. That
// there are several matters, too: one frees what another has finalized.
func (w *weir) memory(ctx context.Context) (r resident, err error) {
	same := 0
	for second := 0; second < mostSeconds && same < settledFor; second++ {
		if err := w.heap(ctx, io.Discard); err != nil {
			return r, err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return r, ctx.Err()
		}
		now, err := w.edge.Memory()
		if err != nil {
			return r, fmt.Errorf("measure the edge: %w", err)
		}
		if same++; second == 0 || now < r.edge {
			same = 0
			r.edge = now
		}
	}
	if r.server, err = w.server.Memory(); err != nil {
		return r, fmt.Errorf("measure the server: %w", err)
	}
	return r, nil
}

// heap has the edge collect, and takes the profile of what is left.
func (w *weir) heap(ctx context.Context, profile io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.proxyAdmin+"/debug/pprof/heap?gc=1", nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("collect: %s", answer.Status)
	}
	_, err = io.Copy(profile, answer.Body)
	return err
}

// saveHeap saves the profile, unless there is nowhere to.
func (w *weir) saveHeap(ctx context.Context, file string) error {
	if file == "" {
		return nil
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	err = w.heap(ctx, out)
	if closed := out.Close(); err == nil {
		err = closed
	}
	return err
}

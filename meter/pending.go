package meter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/internal/durable"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Report brings segments to the servers, and returns once they have them for good. An
// error is no answer: they may have them or not. It wraps [ErrRefused] where they will
// never take them.
type Report func(context.Context, *weirv1.ReportUsageRequest) error

// ErrRefused: the servers cannot take what they were sent, now or later.
var ErrRefused = errors.New("refused")

const (
	// maxReport bounds a report, in bytes. A segment that is longer goes by itself.
	maxReport = 128 << 10
	// maxSegments bounds it in segments.
	maxSegments = 32
	// firstRetry and lastRetry are how long it takes until servers are asked again.
	firstRetry = 200 * time.Millisecond
	lastRetry  = 5 * time.Second
	sayAgain   = time.Minute
)

// waiting is a sealed segment.
type waiting struct {
	name
	path  string
	since time.Time
	told  bool // that not all of it can be read
}

// pending is what the servers are yet to be told.
type pending struct {
	dir  string
	log  *slog.Logger
	wake chan struct{}
	// look is how often it is looked for what another process has left.
	look time.Duration

	mu       sync.Mutex
	segments []*waiting         // of each epoch in order
	adopted  map[epoch]*os.File // the locks of epochs that others have left
	ended    map[epoch]bool     // those of them of which nothing is left

	failing time.Time // since when reports fail; who sends has it
	told    time.Time // when that was last said

	sent, torn, damaged atomic.Uint64
}

func (p *pending) init(cfg Config) {
	p.dir, p.log, p.look = cfg.Dir, cfg.Logger, cfg.Every
	p.wake = make(chan struct{}, 1)
	p.adopted, p.ended = map[epoch]*os.File{}, map[epoch]bool{}
}

func (p *pending) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.segments)
}

func (p *pending) add(w *waiting) {
	p.mu.Lock()
	p.segments = append(p.segments, w)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// adopt takes over the segments of epochs that nobody holds any more.
func (p *pending) adopt() error {
	all, err := left(p.dir)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := range all {
		if p.adopted[e] != nil {
			continue
		}
		lock, err := lockLeft(p.dir, e)
		if err != nil {
			return err
		}
		if lock == nil {
			continue
		}
		p.adopted[e] = lock
		// Only now: until then its process may have made one more.
		now, err := left(p.dir)
		if err != nil {
			return err
		}
		for _, n := range now[e] {
			p.segments = append(p.segments, &waiting{name: n, path: n.path(p.dir), since: modified(n.path(p.dir))})
		}
		if len(now[e]) == 0 {
			p.ended[e] = true
		}
	}
	return nil
}

func modified(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Now()
	}
	return info.ModTime()
}

// run sends until ctx ends.
func (p *pending) run(ctx context.Context, report Report) {
	look := time.NewTicker(p.look)
	defer look.Stop()
	retry := firstRetry
	for {
		var again <-chan time.Time
		if p.send(ctx, report) {
			retry = firstRetry
		} else {
			again = time.After(retry)
			retry = min(2*retry, lastRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
			continue
		case <-look.C:
		case <-p.wake:
		}
		if err := p.adopt(); err != nil {
			p.log.Warn("usage that another process has left is not taken over", "error", err)
		}
		if again != nil { // what is new is no reason to be in more of a hurry
			select {
			case <-ctx.Done():
				return
			case <-again:
			}
		}
	}
}

// send sends all there is; false: not all of it arrived.
func (p *pending) send(ctx context.Context, report Report) bool {
	size := maxSegments
	for ctx.Err() == nil {
		batch, segments := p.next(size)
		ended := p.endedEpochs()
		if len(segments) == 0 && len(ended) == 0 {
			return true
		}
		m := &weirv1.ReportUsageRequest{Segments: segments}
		for _, e := range ended {
			m.Ended = append(m.Ended, e[:])
		}
		err := report(ctx, m)
		p.tell(ctx, err)
		switch {
		case err == nil:
			p.arrived(batch)
			p.forget(ended)
		case errors.Is(err, ErrRefused) && len(batch) > 1:
			size = 1 // to find the one
		case errors.Is(err, ErrRefused) && len(batch) == 1:
			p.setAside(batch[0], refusedSuffix, err)
		default:
			return false
		}
	}
	return false
}

// tell says when reports begin to fail, now and then that they still do, and when they no
// longer do.
func (p *pending) tell(ctx context.Context, err error) {
	switch {
	case err == nil && !p.failing.IsZero():
		p.log.Info("usage is reported again", "failed_for", time.Since(p.failing).Round(time.Second))
		p.failing = time.Time{}
	case err == nil, errors.Is(err, ErrRefused), ctx.Err() != nil:
	case p.failing.IsZero(), time.Since(p.told) > sayAgain:
		if p.failing.IsZero() {
			p.failing = time.Now()
		}
		p.told = time.Now()
		p.log.Warn("usage not reported; it waits", "segments", p.len(), "error", err)
	}
}

// next reads what goes into a report: the first segments, at most so many. What can be
// read of none is put out of the way.
func (p *pending) next(most int) (batch []*waiting, segments []*weirv1.UsageSegment) {
	p.mu.Lock()
	all := slices.Clone(p.segments)
	p.mu.Unlock()
	oldest := map[epoch]uint64{}
	for _, w := range all {
		if first, ok := oldest[w.epoch]; !ok || w.sequence < first {
			oldest[w.epoch] = w.sequence
		}
	}
	total := 0
	for _, w := range all {
		m := p.read(w)
		if m == nil {
			continue
		}
		m.Oldest = oldest[w.epoch]
		size := proto.Size(m)
		if len(batch) == most || len(batch) > 0 && total+size > maxReport {
			break
		}
		total += size
		batch, segments = append(batch, w), append(segments, m)
	}
	return batch, segments
}

// read reads a segment; nil: there is nothing in it.
func (p *pending) read(w *waiting) *weirv1.UsageSegment {
	data, err := os.ReadFile(w.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // it is as it was, and can be read another time
		p.log.Error("segment cannot be read; trying on", "segment", w.path, "error", err)
		return nil
	}
	var c *contents
	if err == nil {
		c, err = readSegment(data)
	}
	if err == nil && c.name != w.name && c.name != (name{}) {
		err = errors.New("it is of another name")
	}
	switch {
	case err == nil && len(c.counts) == 0 && c.torn == 0:
		p.arrived([]*waiting{w})
		return nil
	case err != nil:
		p.setAside(w, damagedSuffix, err)
		return nil
	case c.torn > 0 && !w.told:
		w.told = true
		p.torn.Add(uint64(c.torn))
		p.log.Error("counters cannot be read and are skipped", "segment", w.path, "counters", c.torn)
	}
	return &weirv1.UsageSegment{Epoch: w.epoch[:], Sequence: w.sequence, Counts: c.counts}
}

// arrived deletes what need not be kept, and notes which epochs are at their end.
func (p *pending) arrived(batch []*waiting) {
	if len(batch) == 0 {
		return
	}
	for _, w := range batch {
		if err := os.Remove(w.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.log.Warn("segment that has arrived is not deleted", "error", err) // sent again it changes nothing
		}
	}
	if err := durable.SyncDir(p.dir); err != nil {
		p.log.Warn("usage journal's directory not synced", "error", err)
	}
	p.sent.Add(uint64(len(batch)))
	p.drop(batch)
}

// drop forgets segments whose files are gone.
func (p *pending) drop(batch []*waiting) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.segments = slices.DeleteFunc(p.segments, func(w *waiting) bool { return slices.Contains(batch, w) })
	for _, gone := range batch {
		more := slices.ContainsFunc(p.segments, func(w *waiting) bool { return w.epoch == gone.epoch })
		if p.adopted[gone.epoch] != nil && !more {
			p.ended[gone.epoch] = true
		}
	}
}

// setAside keeps a file for people to look at.
func (p *pending) setAside(w *waiting, suffix string, why error) {
	p.damaged.Add(1)
	p.log.Error("segment not reported; it is set aside", "segment", w.path+suffix, "error", why)
	if err := os.Rename(w.path, w.path+suffix); err != nil {
		p.log.Error("segment not set aside", "error", err)
	}
	p.drop([]*waiting{w})
}

func (p *pending) endedEpochs() (all []epoch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := range p.ended {
		if all = append(all, e); len(all) == maxSegments {
			break
		}
	}
	return all
}

// forget removes the last of epochs that have ended, which the servers know.
func (p *pending) forget(ended []epoch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range ended {
		if err := os.Remove(lockPath(p.dir, e)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.log.Warn("epoch that has ended is not removed", "error", err)
			continue
		}
		_ = p.adopted[e].Close()
		delete(p.adopted, e)
		delete(p.ended, e)
	}
}

// close leaves it all to the next process.
func (p *pending) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for e, lock := range p.adopted {
		if err := lock.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close lock of epoch %s: %w", e, err))
		}
	}
	clear(p.adopted)
	return errors.Join(errs...)
}

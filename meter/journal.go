package meter

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

// Config is what a journal needs.
type Config struct {
	// Dir is the journal's own directory; it is made where it is missing.
	Dir    string
	Logger *slog.Logger
	// Every is how often a segment is sealed that something was counted in. 0: 5 s.
	Every time.Duration
}

const (
	defaultEvery = 5 * time.Second
	// ahead is how many sealed segments wait for the servers before the active one goes
	// on instead of being sealed in its time.
	ahead = 4
	// most is how many there may be at all: beyond it a full segment stays the active
	// one, and what is new has no operation.
	most = 1024
	// lastWords is how long the last report may take when the process ends.
	lastWords = 3 * time.Second
)

// Journal counts. Make it with [Open], and have it send by [Journal.Run].
type Journal struct {
	cfg   Config
	epoch epoch
	lock  *os.File // of the epoch
	slots int      // of a segment

	active atomic.Pointer[segment]
	full   chan struct{} // asks for another one

	// mu is held to make room for a series, and to change the active segment.
	mu       sync.Mutex
	held     map[series]uint64 // what there was no room for
	closed   bool
	overflow atomic.Uint64 // answers counted without their operation

	sequence uint64 // of the newest segment; whoever rotates has it
	troubled bool   // no segment could be made, and that was said

	pending pending
}

// Open begins a journal's next epoch, and takes over what those before have left. A
// journal without a segment, for want of space on the disk, counts in memory until there
// is one.
func Open(cfg Config) (*Journal, error) { return open(cfg, slotsPerSegment) }

func open(cfg Config, slots int) (*Journal, error) {
	if cfg.Every == 0 {
		cfg.Every = defaultEvery
	}
	j := &Journal{cfg: cfg, slots: slots, full: make(chan struct{}, 1), held: map[series]uint64{}}
	j.pending.init(cfg)
	j.active.Store(nowhere())
	if _, err := rand.Read(j.epoch[:]); err != nil {
		return nil, fmt.Errorf("open usage journal: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open usage journal: %w", err)
	}
	var err error
	if j.lock, err = lockNew(cfg.Dir, j.epoch); err != nil {
		return nil, fmt.Errorf("open usage journal: %w", err)
	}
	if err := j.pending.adopt(); err != nil {
		return nil, errors.Join(fmt.Errorf("open usage journal: %w", err), j.lock.Close())
	}
	j.rotate()
	return j, nil
}

// nowhere is a segment without room.
func nowhere() *segment { return &segment{index: newIndex(0), slots: 0} }

// Count counts the answer that an exchange is about to be given, if it has a consumer.
func (j *Journal) Count(x *exchange.Exchange) {
	key, counts := seriesOf(x)
	if !counts {
		return
	}
	hash := key.hashed()
	for {
		found, sealed := j.active.Load().count(&key, hash)
		if !found {
			j.countNew(key, hash)
		}
		if !sealed {
			return
		}
	}
}

// countNew counts the first answer of a series in the active segment, and each one that
// there is no room for.
func (j *Journal) countNew(key series, hash uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.active.Load()
	if s.add(&key, hash, 1) {
		return
	}
	select {
	case j.full <- struct{}{}:
	default:
	}
	coarse := key
	coarse.operation = Overflow
	if s.add(&coarse, coarse.hashed(), 1) {
		j.overflow.Add(1)
		return
	}
	j.held[key]++
}

// rotate seals the active segment, if something was counted in it, and has another one
// take its place. Only one goroutine does.
func (j *Journal) rotate() {
	j.mu.Lock()
	idle := j.active.Load().used == 0 && j.active.Load().path != "" && len(j.held) == 0 || j.closed
	j.mu.Unlock()
	if idle {
		return
	}
	next := name{j.epoch, j.sequence + 1}
	s, err := createSegment(next.path(j.cfg.Dir), next, j.slots)
	if err != nil {
		if !j.troubled {
			j.cfg.Logger.Error("no room to count in; what is new is counted in memory", "error", err)
		}
		j.troubled = true
		return
	}
	j.troubled = false
	j.sequence++
	j.retire(s)
}

// retire puts a segment in the place of the active one, and seals that.
func (j *Journal) retire(next *segment) {
	j.mu.Lock()
	for key, n := range j.held {
		if next.add(&key, key.hashed(), n) {
			delete(j.held, key)
		}
	}
	old := j.active.Swap(next)
	j.mu.Unlock()
	if old.path == "" {
		return
	}
	if err := old.seal(); err != nil {
		j.cfg.Logger.Error("segment not synced", "error", err)
	}
	// What is beyond the slots in use nobody comes to.
	if err := os.Truncate(old.path, int64(slotSize*(old.used+1))); err != nil {
		j.cfg.Logger.Warn("segment not cut to size", "error", err)
	}
	j.pending.add(&waiting{name: old.name, path: old.path, since: time.Now()})
}

// Run seals and sends until ctx ends, and then once more what there is.
func (j *Journal) Run(ctx context.Context, report Report) error {
	var sending sync.WaitGroup
	sending.Go(func() { j.pending.run(ctx, report) })
	tick := time.NewTicker(j.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			sending.Wait()
			j.rotate()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
			defer cancel()
			j.pending.send(last, report)
			return context.Cause(ctx)
		case <-tick.C:
			if j.pending.len() < ahead {
				j.rotate()
			}
		case <-j.full:
			if j.pending.len() < most {
				j.rotate()
			}
		}
	}
}

// Close ends the journal: what is counted from then on is lost. What was not sent is
// there for the next one.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	s := j.active.Swap(nowhere())
	var err error
	switch {
	case s.path == "":
	case s.used == 0:
		err = os.Remove(s.path)
	default:
		err = s.seal()
	}
	if len(j.held) > 0 {
		j.cfg.Logger.Error("usage lost: there was no room for it on the disk", "answers", j.unjournaled())
	}
	if err = errors.Join(err, j.pending.close(), j.lock.Close()); err != nil {
		return fmt.Errorf("close usage journal: %w", err)
	}
	return nil
}

// unjournaled counts the answers that are in memory alone. The caller has the lock.
func (j *Journal) unjournaled() (n uint64) {
	for _, held := range j.held {
		n += held
	}
	return n
}

func (e epoch) String() string { return hex.EncodeToString(e[:]) }

// path is where a segment lies.
func (n name) path(dir string) string {
	return filepath.Join(dir, fmt.Sprintf("%s.%016x%s", n.epoch, n.sequence, segmentSuffix))
}

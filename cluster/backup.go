package cluster

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"github.com/hashicorp/raft"
)

// A backup is a stream:
//
//	magic, size of the head (4 bytes), head, part…, 0 (4 bytes), SHA-256
//	head = cluster, index, floor, time in nanoseconds
//	part = size (4 bytes), bytes of a snapshot of the state machine
//
// The digest is that of all before it. It is checked, and with it every byte,
// before anything of a backup is used.
const (
	backupMagic = "weir backup 1\n"
	maxHead     = 4 << 10
	maxPart     = 256 << 10
)

// ErrDamaged: what was given is not a whole backup.
var ErrDamaged = errors.New("it is no whole backup")

// BackupInfo is the head of a backup.
type BackupInfo struct {
	// Cluster is what Backup was told that the cluster is called.
	Cluster string
	// Index is the last one that the state holds. Floor is the highest number
	// that the state machine had shown to anyone; what is restored goes on above
	// both.
	Index, Floor uint64
	Taken        time.Time
}

func encodeHead(info BackupInfo) []byte {
	b := appendBytes(nil, []byte(info.Cluster))
	b = binary.AppendUvarint(b, info.Index)
	b = binary.AppendUvarint(b, info.Floor)
	return binary.AppendVarint(b, info.Taken.UnixNano())
}

func decodeHead(b []byte) (info BackupInfo, err error) {
	r := &reader{b: b}
	info.Cluster = string(r.bytes())
	info.Index, info.Floor = r.number(), r.number()
	nanos, n := binary.Varint(r.b)
	if r.err != nil || n <= 0 || n != len(r.b) {
		return info, fmt.Errorf("%w: its head makes no sense", ErrDamaged)
	}
	info.Taken = time.Unix(0, nanos)
	return info, nil
}

// Backup writes the state to w, as it is at some time after the call: with
// everything that was acknowledged anywhere before it. Writes go on meanwhile.
// The name of the cluster goes into it.
func (n *Node) Backup(ctx context.Context, cluster string, w io.Writer) error {
	if err := n.backup(ctx, cluster, w); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

// BackupOwn writes the state as this member has it, without asking the others:
// what was acknowledged elsewhere may be missing.
func (n *Node) BackupOwn(ctx context.Context, cluster string, w io.Writer) error {
	if err := n.backupOwn(ctx, cluster, w); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

func (n *Node) backup(ctx context.Context, cluster string, w io.Writer) error {
	if err := n.readBarrier(ctx); err != nil {
		return err
	}
	return n.backupOwn(ctx, cluster, w)
}

func (n *Node) backupOwn(ctx context.Context, cluster string, w io.Writer) error {
	if !n.begin() {
		return ErrClosed
	}
	defer n.calls.Done()
	ctx, cancel := n.whileOpen(ctx)
	defer cancel()
	n.machine.turn.Lock()
	write, release, err := n.machine.StateMachine.Snapshot()
	info := BackupInfo{Cluster: cluster, Index: n.machine.Applied(), Floor: n.floor(), Taken: time.Now()}
	n.machine.turn.Unlock()
	if err != nil {
		return err
	}
	defer release()
	out := newBackupWriter(w)
	out.head(info)
	if err := write(contextWriter{ctx, out}); err != nil {
		return err
	}
	return out.end()
}

func (n *Node) floor() uint64 {
	if n.cfg.Floor == nil {
		return 0
	}
	return n.cfg.Floor()
}

// contextWriter ends a long write with its context.
type contextWriter struct {
	ctx context.Context
	io.Writer
}

func (w contextWriter) Write(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	return w.Writer.Write(p)
}

type backupWriter struct {
	out *bufio.Writer
	sum hash.Hash
}

func newBackupWriter(w io.Writer) *backupWriter {
	sum := sha256.New()
	return &backupWriter{out: bufio.NewWriterSize(io.MultiWriter(w, sum), maxPart), sum: sum}
}

func (w *backupWriter) head(info BackupInfo) {
	head := encodeHead(info)
	_, _ = w.out.WriteString(backupMagic) // an error stays until Flush
	_, _ = w.out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(head))))
	_, _ = w.out.Write(head)
}

func (w *backupWriter) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		part := p[:min(len(p), maxPart)]
		_, _ = w.out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		if _, err := w.out.Write(part); err != nil {
			return written, err
		}
		written, p = written+len(part), p[len(part):]
	}
	return written, nil
}

func (w *backupWriter) end() error {
	_, _ = w.out.Write(make([]byte, 4))
	if err := w.out.Flush(); err != nil {
		return err
	}
	_, _ = w.out.Write(w.sum.Sum(nil))
	return w.out.Flush()
}

// readBackup copies the state of a backup, and says whether it was whole.
func readBackup(r io.Reader, state io.Writer) (info BackupInfo, err error) {
	sum := sha256.New()
	raw := bufio.NewReaderSize(r, maxPart)
	in := io.TeeReader(raw, sum)
	magic := make([]byte, len(backupMagic))
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != backupMagic {
		return info, fmt.Errorf("%w: it does not begin like one of this version", ErrDamaged)
	}
	head := new(bytes.Buffer)
	if _, err := readPart(in, head, maxHead); err != nil {
		return info, err
	}
	if info, err = decodeHead(head.Bytes()); err != nil {
		return info, err
	}
	for size := int64(1); size > 0; {
		if size, err = readPart(in, state, maxPart); err != nil {
			return info, err
		}
	}
	want := sum.Sum(nil)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(raw, got); err != nil {
		return info, fmt.Errorf("%w: it is cut short", ErrDamaged)
	}
	if !bytes.Equal(got, want) {
		return info, fmt.Errorf("%w: its digest does not hold, something in it was changed", ErrDamaged)
	}
	if _, err := raw.ReadByte(); err != io.EOF {
		return info, fmt.Errorf("%w: something follows its end", ErrDamaged)
	}
	return info, nil
}

func readPart(in io.Reader, to io.Writer, most int64) (int64, error) {
	var head [4]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return 0, fmt.Errorf("%w: it is cut short", ErrDamaged)
	}
	size := int64(binary.BigEndian.Uint32(head[:]))
	if size > most {
		return 0, fmt.Errorf("%w: a part of %d bytes makes no sense", ErrDamaged, size)
	}
	n, err := io.CopyN(to, in, size)
	if err == io.EOF || n < size && err == io.ErrUnexpectedEOF {
		return 0, fmt.Errorf("%w: it is cut short", ErrDamaged)
	}
	return size, err
}

// CheckBackup tells whether a backup is whole, and is of the cluster named.
func CheckBackup(cluster string, r io.Reader) error {
	info, err := readBackup(r, io.Discard)
	if err == nil {
		err = info.of(cluster)
	}
	if err != nil {
		return fmt.Errorf("check backup: %w", err)
	}
	return nil
}

// of refuses a backup of another cluster than the one named.
func (info BackupInfo) of(cluster string) error {
	if cluster != "" && info.Cluster != cluster {
		return fmt.Errorf("%w: it is a backup of %q, not of %q", ErrRefused, info.Cluster, cluster)
	}
	return nil
}

// spool is the state of a backup that is whole, in a file that nothing names.
func spool(dir, cluster string, r io.Reader) (info BackupInfo, f *os.File, size int64, err error) {
	f, err = os.CreateTemp(dir, ".restore.*")
	if err != nil {
		return info, nil, 0, err
	}
	err = os.Remove(f.Name())
	if err == nil {
		info, err = readBackup(r, f)
	}
	if err == nil {
		err = info.of(cluster)
	}
	if err == nil {
		if size, err = f.Seek(0, io.SeekEnd); err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
	}
	if err != nil {
		return info, nil, 0, errors.Join(err, f.Close())
	}
	return info, f, size, nil
}

// Checker is a state machine that can tell whether Restore would take a
// snapshot. It is asked before a backup replaces anything.
type Checker interface {
	Check(io.Reader) error
}

// Restore replaces the state of all members by that of a backup, and returns
// once a quorum has it. Only the leader does that. A backup that is not whole,
// or of another cluster than the one named, is refused before anything changes;
// no name is any cluster. Indexes go on above all that were ever given, here and
// in the backup. What was proposed and not acknowledged yet gets ErrUnknown.
func (n *Node) Restore(ctx context.Context, cluster string, r io.Reader) error {
	if err := n.restore(ctx, cluster, r); err != nil {
		return fmt.Errorf("restore backup: %w", err)
	}
	return nil
}

func (n *Node) restore(ctx context.Context, cluster string, r io.Reader) error {
	if !n.begin() {
		return ErrClosed
	}
	defer n.calls.Done()
	if !n.leads() {
		return ErrNotLeader
	}
	info, f, size, err := spool(n.cfg.Dir, cluster, r)
	if err != nil {
		return err
	}
	defer f.Close()
	if c, ok := n.machine.StateMachine.(Checker); ok {
		err := c.Check(io.NewSectionReader(f, 0, size))
		if err != nil {
			return err
		}
	}
	meta := &raft.SnapshotMeta{
		Version: raft.SnapshotVersionMax, Size: size,
		Index: max(info.Index, info.Floor, n.floor()),
	}
	if err := n.raft.Restore(meta, f, 0); err != nil {
		return proposeError(err)
	}
	// Only with an entry after it do the others take the new state over, and is
	// it theirs too that reads here may show.
	if err := n.raft.Apply(nil, 0).Error(); err != nil {
		return proposeError(err)
	}
	return ctx.Err()
}

// FoundFrom makes the log of a new cluster, of the member cfg names alone, out
// of a backup. Start then runs it, and others may join. check is asked about the
// state in it before anything is there; nil: nobody is.
func FoundFrom(cfg Config, cluster string, r io.Reader, check func(io.Reader) error) error {
	if err := foundFrom(cfg, cluster, r, check); err != nil {
		return fmt.Errorf("found cluster from backup: %w", err)
	}
	return nil
}

func foundFrom(cfg Config, cluster string, r io.Reader, check func(io.Reader) error) error {
	o, err := openOffline(cfg, false)
	if err != nil {
		return err
	}
	defer o.close()
	info, f, size, err := spool(cfg.Dir, cluster, r)
	if err != nil {
		return err
	}
	defer f.Close()
	if check != nil {
		if err := check(io.NewSectionReader(f, 0, size)); err != nil {
			return err
		}
	}
	alone := configuration([]Member{{Name: cfg.Name}})
	sink, err := o.snapshots.Create(raft.SnapshotVersionMax, max(info.Index, info.Floor)+1, 1, alone, 1, o.transport)
	if err != nil {
		return err
	}
	if _, err := io.Copy(sink, f); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

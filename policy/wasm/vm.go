package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/weirmesh/weir/policy"
)

// rootID is the context that stands for the policy itself; filters have the ids
// after it.
const rootID = 1

// stage is what a VM is busy with. It decides what host functions may do.
type stage uint8

const (
	stageIdle stage = iota
	// stageStart: the guest's runtime initialises itself. Only logging and the
	// system interface work.
	stageStart
	// stageRoot: the guest is configured, or ticks.
	stageRoot
	stageRequestHead
	stageRequestBody
	stageResponseHead
	stageResponseBody
	stageEnd
	// Of connections that carry no HTTP.
	stageConnect
	stageDownstream
	stageUpstream
)

// vm is an instance of a module. Its memory, its globals and everything below mu
// belong to whoever holds mu, which is held for the length of a callback.
//
// A vm is also the context.Context of its calls: so host functions find it
// without a look-up and without an allocation.
type vm struct {
	context.Context // never cancelled: fuel ends calls
	policy          *Policy

	holders atomic.Int32 // exchanges that hold it; negative: retired

	mu        sync.Mutex
	dead      bool   // closed, or about to be
	uses      uint32 // callbacks
	mod       api.Module
	mem       api.Memory
	tank      api.MutableGlobal
	functions [len(callbacks)]api.Function
	allocator allocator
	random    io.Reader

	stage stage
	// current is the filter whose callback runs, nil in the root context;
	// effective is where the guest has switched to.
	current, effective *filter
	filters            []*filter
	lastID             uint32
	calls              map[uint32]*call // in flight, by their tokens
	lastToken          uint32
	told               *call // about which the guest is being told
	// allocating: the guest's allocator runs, called from a host function.
	allocating bool
	burned     uint64 // and not yet counted as the filter's or the policy's
	owed       int64  // fuel that host functions have used and not yet drawn
	left       int64  // fuel, when the callback had returned

	stack      [5]uint64 // arguments and result of the callback
	allocStack [1]uint64 // of the allocator
	scratch    []byte    // results on their way into the guest
	digits     [20]byte
	output     [2]output // what the guest writes to standard output and error

	// What the guest said about itself while it was configured.
	tickPeriod time.Duration
	wanted     policy.Phases
	announced  bool
	trailing   byte // the trailers that were announced
	brief      bool
	light      bool
	indulgent  bool
	edits      []edit // by their number, less one
	editBytes  int
	handles    handles
	schema     []byte // of its configuration, when it is asked for

	// Of whoever trims the pool.
	seen      uint32 // uses, when it was looked at last
	idleSince time.Time

	recent recentLines // for an error about it
}

type vmKey struct{}

func newVM(p *Policy) *vm {
	return &vm{Context: context.Background(), policy: p, lastID: rootID, random: p.host.config.Random(), calls: map[uint32]*call{}}
}

// vmOf finds the VM in the context of a host call. While a module is being
// instantiated the engine is given another context around it.
func vmOf(ctx context.Context) *vm {
	if v, ok := ctx.(*vm); ok {
		return v
	}
	return ctx.Value(vmKey{}).(*vm)
}

// start makes the instance and configures it. It has failed if it returns an error,
// and is closed.
func (v *vm) start() (err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	defer func() {
		v.policy.pool.book(v)
		if err != nil {
			v.holders.Add(retired)
			v.close()
		}
	}()
	if err := v.instantiate(); err != nil {
		return fmt.Errorf("start plugin: %w", err)
	}
	v.stage = stageRoot
	defer func() { v.stage = stageIdle }()
	v.stack[0], v.stack[1] = rootID, 0
	if err := v.run(cbContextCreate, startFactor); err != nil {
		return fmt.Errorf("start plugin: %w", err)
	}
	if ok, err := v.ask(cbVMStart, 0); err != nil || !ok {
		return fmt.Errorf("start plugin: %w", refusal(err, "it refuses to start"))
	}
	if ok, err := v.ask(cbConfigure, len(v.policy.spec.Config)); err != nil || !ok {
		return fmt.Errorf("configure plugin: %w", refusal(err, "it refuses its configuration"))
	}
	return nil
}

func refusal(err error, words string) error {
	if err != nil {
		return err
	}
	return errors.New(words)
}

// ask makes a callback of the root context that says yes or no; what a guest
// does not export is yes.
func (v *vm) ask(cb int, size int) (bool, error) {
	if v.functions[cb] == nil {
		return true, nil
	}
	v.stack[0], v.stack[1] = rootID, uint64(size)
	err := v.run(cb, startFactor)
	return uint32(v.stack[0]) != 0, err
}

// instantiate makes the instance and lets its language's runtime initialise
// itself.
func (v *vm) instantiate() (err error) {
	v.stage = stageStart
	defer func() { v.stage = stageIdle }()
	if err := v.newInstance(); err != nil {
		return err
	}
	v.attach(v.mod)
	for i, c := range callbacks {
		v.functions[i] = v.mod.ExportedFunction(c.name)
	}
	if v.functions[cbInitialize] == nil {
		return v.run(cbStart, startFactor)
	}
	if err := v.run(cbInitialize, startFactor); err != nil {
		return err
	}
	v.stack[0], v.stack[1] = 0, 0
	if v.functions[cbMain] != nil {
		return v.run(cbMain, startFactor)
	}
	return v.run(cbMainVoid, startFactor)
}

var errTenantMemory = errors.New("the sandboxes of the tenant have all the memory that they may have")

func (v *vm) newInstance() (err error) {
	defer func() {
		if r := recover(); r != nil { // the engine panics when there is no memory
			err = fmt.Errorf("make instance: %v", r)
		}
		if err != nil {
			v.policy.data.vms.Add(-1)
			v.allocator.memory.Free()
		}
		if err != nil && v.allocator.memory.refused {
			err = errTenantMemory
		}
	}()
	v.policy.data.vms.Add(1)
	v.allocator.memory.tenant = v.policy.data
	ctx := context.WithValue(context.Background(), vmKey{}, v)
	ctx = experimental.WithMemoryAllocator(ctx, &v.allocator)
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions()
	v.mod, err = v.policy.module.runtime.InstantiateModule(ctx, v.policy.module.compiled, config)
	if err != nil {
		words, _, _ := strings.Cut(err.Error(), "\n")
		return fmt.Errorf("make instance: %s", words)
	}
	return nil
}

// shut closes a VM that nobody holds.
func (v *vm) shut() {
	v.mu.Lock()
	v.close()
	v.mu.Unlock()
}

// close frees the instance. It must not be running.
func (v *vm) close() {
	v.dead = true
	v.dropHandles()
	for _, c := range v.calls {
		c.cancel()
	}
	if v.mod != nil {
		_ = v.mod.Close(context.Background())
		v.mod = nil
		v.policy.data.vms.Add(-1)
	}
	v.allocator.memory.Free()
}

// run makes a callback with the arguments in v.stack and so many tanks of fuel;
// the result is in v.stack[0]. What the guest does not export does nothing.
func (v *vm) run(cb int, tanks int64) error {
	f := v.functions[cb]
	if f == nil {
		return nil
	}
	full := v.policy.fuel * tanks
	v.tank.Set(uint64(full))
	err := f.CallWithStack(v, v.stack[:])
	left := int64(v.tank.Get()) - v.owed
	v.owed = 0
	v.burned += uint64(full - left)
	v.left = left
	if err == nil && left < 0 {
		err = errEmpty // the last host calls were too dear
	}
	if err != nil {
		return v.trapped(cb, err, left)
	}
	return nil
}

// charge takes fuel for what a callback has asked for by its action.
func (v *vm) charge(cb int, n int64) error {
	v.burned += uint64(n)
	if v.left -= n; v.left < 0 {
		return newTrap(callbacks[cb].name, errEmpty, v.left)
	}
	return nil
}

// trapped makes sense of the engine's error. That a function of ours panicked is
// our fault, and its stack is worth more than the guest's.
func (v *vm) trapped(cb int, err error, left int64) error {
	var bug runtime.Error
	if errors.As(err, &bug) {
		v.policy.log.logger.Error("host function failed", "error", err)
	}
	return newTrap(callbacks[cb].name, err, left)
}

// draw takes fuel for work that the host does. It is settled before dear work, which
// an empty tank must not pay for, before the guest runs inside of a host call, and
// at the end of the callback. To settle after each call would cost the host more
// than many of them do, and what a guest overdraws meanwhile is no more than mostOwed.
func (v *vm) draw(n int64) {
	if v.owed += n; v.owed > mostOwed {
		v.settle()
	}
}

// settle takes what is owed out of the tank. An empty one ends the callback.
func (v *vm) settle() {
	left := int64(v.tank.Get()) - v.owed
	v.owed = 0
	v.tank.Set(uint64(left))
	if left < 0 {
		panic(errEmpty)
	}
}

func (v *vm) drawBytes(n int) { v.draw(int64(n) / 4 * fuelPerByte4) }

// phases is what the guest exports, less what its SDK said it does not use.
func (v *vm) phases() (p policy.Phases) {
	for cb, phase := range map[int]policy.Phases{
		cbRequestHeaders: policy.RequestHead, cbRequestBody: policy.RequestBody, cbRequestTrailers: policy.RequestBody,
		cbResponseHeaders: policy.ResponseHead, cbResponseBody: policy.ResponseBody, cbResponseTrailers: policy.ResponseBody,
	} {
		if v.functions[cb] != nil {
			p |= phase
		}
	}
	if !v.announced {
		return p
	}
	wanted := v.wanted
	if v.trailing&trailingRequest != 0 {
		wanted |= policy.RequestBody
	}
	if v.trailing&trailingResponse != 0 {
		wanted |= policy.ResponseBody
	}
	return p & wanted
}

// newID returns an id that no filter of this VM has.
func (v *vm) newID() uint32 {
	for {
		v.lastID++
		if v.lastID <= rootID {
			v.lastID = rootID + 1 // wrapped
		}
		if v.filter(v.lastID) == nil {
			return v.lastID
		}
	}
}

// shown is the exchange that the guest acts for, if it may be looked at.
func (v *vm) shown() *filter {
	if f := v.effective; f != nil && f.stage != stageIdle {
		return f
	}
	return nil
}

func (v *vm) filter(id uint32) *filter {
	for _, f := range v.filters {
		if f.id == id {
			return f
		}
	}
	return nil
}

// The callbacks, by which a guest is called.
const (
	cbInitialize = iota
	cbStart
	cbMain
	cbMainVoid
	cbAllocate
	cbMalloc
	cbContextCreate
	cbVMStart
	cbConfigure
	cbTick
	cbQueueReady
	cbHTTPCallResponse
	cbRedisCallResponse
	cbGRPCInitialMetadata
	cbGRPCReceive
	cbGRPCTrailingMetadata
	cbGRPCClose
	cbRequestHeaders
	cbRequestBody
	cbRequestTrailers
	cbResponseHeaders
	cbResponseBody
	cbResponseTrailers
	cbNewConnection
	cbDownstreamData
	cbUpstreamData
	cbDownstreamClose
	cbUpstreamClose
	cbDone
	cbLog
	cbDelete
	cbSchema
	cbCount
)

// callback is an export that the host calls. All its parameters, and its result
// if it has one, are i32.
type callback struct {
	name   string
	least  int // parameters; fewer in ABI 0.1.0
	most   int
	result bool
}

var callbacks = [cbCount]callback{
	cbInitialize:           {"_initialize", 0, 0, false},
	cbStart:                {"_start", 0, 0, false},
	cbMain:                 {"main", 2, 2, true},
	cbMainVoid:             {"__main_void", 0, 0, true},
	cbAllocate:             {"proxy_on_memory_allocate", 1, 1, true},
	cbMalloc:               {"malloc", 1, 1, true},
	cbContextCreate:        {"proxy_on_context_create", 2, 2, false},
	cbVMStart:              {"proxy_on_vm_start", 2, 2, true},
	cbConfigure:            {"proxy_on_configure", 2, 2, true},
	cbTick:                 {"proxy_on_tick", 1, 1, false},
	cbQueueReady:           {"proxy_on_queue_ready", 2, 2, false},
	cbHTTPCallResponse:     {"proxy_on_http_call_response", 5, 5, false},
	cbRedisCallResponse:    {"proxy_on_redis_call_response", 4, 4, false},
	cbGRPCInitialMetadata:  {"proxy_on_grpc_receive_initial_metadata", 3, 3, false},
	cbGRPCReceive:          {"proxy_on_grpc_receive", 3, 3, false},
	cbGRPCTrailingMetadata: {"proxy_on_grpc_receive_trailing_metadata", 3, 3, false},
	cbGRPCClose:            {"proxy_on_grpc_close", 3, 3, false},
	cbRequestHeaders:       {"proxy_on_request_headers", 2, 3, true},
	cbRequestBody:          {"proxy_on_request_body", 3, 3, true},
	cbRequestTrailers:      {"proxy_on_request_trailers", 2, 2, true},
	cbResponseHeaders:      {"proxy_on_response_headers", 2, 3, true},
	cbResponseBody:         {"proxy_on_response_body", 3, 3, true},
	cbResponseTrailers:     {"proxy_on_response_trailers", 2, 2, true},
	cbNewConnection:        {"proxy_on_new_connection", 1, 1, true},
	cbDownstreamData:       {"proxy_on_downstream_data", 3, 3, true},
	cbUpstreamData:         {"proxy_on_upstream_data", 3, 3, true},
	cbDownstreamClose:      {"proxy_on_downstream_connection_close", 2, 2, false},
	cbUpstreamClose:        {"proxy_on_upstream_connection_close", 2, 2, false},
	cbDone:                 {"proxy_on_done", 1, 1, true},
	cbLog:                  {"proxy_on_log", 1, 1, false},
	cbDelete:               {"proxy_on_delete", 1, 1, false},
	cbSchema:               {"weir_config_schema", 0, 0, false},
}

func (c callback) fits(f api.FunctionDefinition) bool {
	params, results := f.ParamTypes(), f.ResultTypes()
	for _, t := range append(append([]api.ValueType(nil), params...), results...) {
		if t != api.ValueTypeI32 {
			return false
		}
	}
	return len(params) >= c.least && len(params) <= c.most && (len(results) == 1) == c.result && len(results) <= 1
}

// Trap says how a callback failed.
type Trap struct {
	// Callback is the export that was called.
	Callback string
	// Reason is the engine's word for it, such as "unreachable".
	Reason string
	// OutOfFuel: the guest used up its tank.
	OutOfFuel bool
	// Stack names the innermost functions, if the module has names.
	Stack []string
	// Frames are all functions that the engine knows of, innermost first; those
	// without a name are "function 123".
	Frames []string
}

func (t *Trap) Error() string {
	where := ""
	if len(t.Stack) > 0 {
		where = " in " + strings.Join(t.Stack, " < ")
	}
	if t.OutOfFuel {
		return t.Callback + " ran out of fuel" + where
	}
	return t.Callback + " trapped: " + t.Reason + where
}

// Is lets others ask for policy.ErrOutOfFuel.
func (t *Trap) Is(target error) bool { return t.OutOfFuel && target == policy.ErrOutOfFuel }

var (
	// errEmpty is the panic of a host function that finds the tank empty.
	errEmpty = errors.New("out of fuel")
	// errAllocate is the panic of a host function when the guest's allocator
	// failed underneath it.
	errAllocate = errors.New("its allocator failed")
	// errLost fails the exchanges that shared a VM with one that trapped.
	errLost = errors.New("its VM was lost to a trap in another exchange")
)

// exit is the panic of a guest that ends itself.
type exit uint32

func (e exit) Error() string { return fmt.Sprintf("it exited with code %d", uint32(e)) }

// newTrap reads the engine's error. That the tank is overdrawn tells a trap for
// lack of fuel from others.
func newTrap(callback string, err error, left int64) error {
	const shown = 3
	t := &Trap{Callback: callback, OutOfFuel: left < 0}
	first, stack, _ := strings.Cut(err.Error(), "\nwasm stack trace:\n")
	first, _, _ = strings.Cut(first, "\n")
	t.Reason = strings.TrimPrefix(strings.TrimSuffix(first, " (recovered by wazero)"), "wasm error: ")
	for line := range strings.Lines(stack) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), "(")
		name = strings.TrimPrefix(name, ".")
		number, nameless := strings.CutPrefix(name, "$")
		switch {
		case name == "" || strings.HasPrefix(name, "..."):
			continue
		case nameless:
			name = "function " + number
		case len(t.Stack) < shown:
			t.Stack = append(t.Stack, name)
		}
		t.Frames = append(t.Frames, name)
	}
	return t
}

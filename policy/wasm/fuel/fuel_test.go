package fuel

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// corpus is one module per group of instructions; each exports f: i32 → i32.
func corpus() map[string]assembly {
	memory := []byte{1, 1, 2}
	return map[string]assembly{
		"straight": {funcs: []function{{code: cat(get(0), constI32(7), mul)}}},
		"loop": {funcs: []function{{locals: []byte{1, 1, i32}, code: cat( // 1 + 2 + … + n
			opLoop, typeVoid, get(0), constI32(0), gtS, opIf, typeVoid,
			get(1), get(0), add, set(1), get(0), constI32(1), sub, set(0), opBr, 1, opEnd, opEnd, get(1))}}},
		"recursion": {funcs: []function{{code: cat( // n == 0 ? 1 : n * f(n-1)
			get(0), eqz, opIf, i32, constI32(1), opElse, get(0), get(0), constI32(1), sub, call, 0, mul, opEnd)}}},
		"switch": {funcs: []function{{code: cat(
			opBlock, typeVoid, opBlock, typeVoid, opBlock, typeVoid, get(0), opBrTable, 2, 0, 1, 2, opEnd,
			constI32(10), opReturn, opEnd, constI32(20), opReturn, opEnd, constI32(30))}}},
		"multiple values": {types: [][]byte{{0x60, 0, 2, i32, i32}, {0x60, 2, i32, i32, 1, i32}}, funcs: []function{
			{code: cat(opBlock, 1, get(0), constI32(3), opEnd, opLoop, 2, add, opEnd)}}},
		"memory": {memory: memory, funcs: []function{{code: cat(
			constI32(10), get(0), constI32(100), opPrefixMisc, 11, 0, // fill
			constI32(300), constI32(50), constI32(40), opPrefixMisc, 10, 0, 0, // copy
			constI32(1), opMemoryGrow, 0, drop, constI32(1), opMemoryGrow, 0, drop,
			constI32(305), load8, 0, 0, 0x3f, 0, add)}}},
		"segments": {memory: memory, dataCount: []byte{1}, data: [][]byte{cat(1, 3, 5, 6, 7)}, funcs: []function{{code: cat(
			constI32(0), constI32(1), constI32(2), opPrefixMisc, 8, 0, 0, opPrefixMisc, 9, 0, constI32(0), load8, 0, 0)}}},
		"tables": {tables: [][]byte{{0x70, 0, 3}}, elements: [][]byte{cat(0, constI32(0), opEnd, 2, 1, 2)}, funcs: []function{
			{code: cat(get(0), opRefNull, 0x70, constI32(5), opPrefixMisc, 15, 0, drop, // grow
				constI32(2), constI32(0), constI32(1), opPrefixMisc, 14, 0, 0, // copy
				constI32(3), opRefFunc, 1, constI32(2), opPrefixMisc, 17, 0, // fill
				constI32(3), 0x11, 0, 0, opPrefixMisc, 16, 0, add)},
			{code: cat(get(0), constI32(1), add)}, {code: cat(get(0), constI32(2), add)}}},
		"extensions": {funcs: []function{{code: cat(get(0), 0xc0, 0xb2, opPrefixMisc, 0, // extend8_s, convert, trunc_sat
			opI32Const, 1, opI32Const, 0, 0x1c, 1, i32)}}},
		"vectors": {memory: memory, funcs: []function{{code: cat(get(0), opPrefixSIMD, 17, get(0), opPrefixSIMD, 17,
			opPrefixSIMD, 0xae, 1, opPrefixSIMD, 27, 2)}}}, // splat, splat, i32x4.add, extract_lane
		"globals": {globals: [][]byte{cat(i32, 1, constI32(5), opEnd), cat(i64, 0, opI64Const, 1, opEnd)}, funcs: []function{
			{code: cat(opGlobalGet, 0, get(0), add, opGlobalSet, 0, opGlobalGet, 0)}}},
		"dead code": {funcs: []function{{code: cat(opBlock, i32, get(0), opBr, 0, opLoop, typeVoid, opBr, 0, opEnd, opIf, typeVoid,
			opElse, opEnd, opEnd)}}},
		"no functions' sections": {funcs: []function{{code: cat(get(0))}}, custom: cat(4, []byte("name"), 1, 4, 1, 0, 1, int('f'))},
	}
}

// engine compiles modules that may import WASI.
type engine struct {
	t  testing.TB
	rt wazero.Runtime
}

func newEngine(t testing.TB, config wazero.RuntimeConfig) engine {
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, config.WithCoreFeatures(api.CoreFeaturesV2))
	t.Cleanup(func() { rt.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, rt)
	return engine{t, rt}
}

func (e engine) start(module []byte) instance {
	e.t.Helper()
	ctx := context.Background()
	mod, err := e.rt.InstantiateWithConfig(ctx, module, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		e.t.Fatal(err)
	}
	i := instance{t: e.t, mod: mod}
	if tank, ok := mod.ExportedGlobal(Global).(api.MutableGlobal); ok {
		i.tank = tank
	}
	if init := mod.ExportedFunction("_initialize"); init != nil {
		i.fill(1 << 40)
		if _, err := init.Call(ctx); err != nil {
			e.t.Fatal(err)
		}
	}
	return i
}

type instance struct {
	t    testing.TB
	mod  api.Module
	tank api.MutableGlobal
}

func (i instance) fill(n int64) {
	if i.tank != nil {
		i.tank.Set(uint64(n))
	}
}

// call returns what a call came to, in words, and what it burned.
func (i instance) call(name string, tank int64, args ...uint64) (string, int64) {
	i.fill(tank)
	got, err := i.mod.ExportedFunction(name).Call(context.Background(), args...)
	burned := int64(0)
	if i.tank != nil {
		burned = tank - int64(i.tank.Get())
	}
	if err != nil {
		line, _, _ := strings.Cut(err.Error(), "\n")
		return line, burned
	}
	return fmt.Sprint(got), burned
}

func rewrite(t testing.TB, module []byte) []byte {
	t.Helper()
	out, _, err := Rewrite(module, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRewrittenModulesBehaveAsBefore(t *testing.T) {
	e := newEngine(t, wazero.NewRuntimeConfigCompiler())
	for name, a := range corpus() {
		t.Run(name, func(t *testing.T) {
			e.t = t
			plain, metered := e.start(a.bytes()), e.start(rewrite(t, a.bytes()))
			again := e.start(rewrite(t, a.bytes()))
			for n := range uint64(6) {
				want, _ := plain.call("f", 0, n)
				got, burned := metered.call("f", 1<<40, n)
				if got != want {
					t.Errorf("f(%d) is %s, was %s", n, got, want)
				}
				if _, twice := again.call("f", 1<<40, n); burned != twice || burned <= 0 {
					t.Errorf("f(%d) burned %d, then %d", n, burned, twice)
				}
			}
		})
	}
}

func TestAnEmptyTankStopsEveryWayToSpendTime(t *testing.T) {
	memory := []byte{1, 1, 2}
	e := newEngine(t, wazero.NewRuntimeConfigCompiler())
	for name, a := range map[string]assembly{
		"an empty loop":           {funcs: []function{{code: cat(opLoop, typeVoid, opBr, 0, opEnd, opUnreachable)}}},
		"a loop around a switch":  {funcs: []function{{code: cat(opLoop, typeVoid, opBlock, typeVoid, get(0), opBrTable, 1, 0, 1, opEnd, opBr, 0, opEnd, get(0))}}},
		"a loop with parameters":  {types: [][]byte{{0x60, 1, i32, 0}}, funcs: []function{{code: cat(get(0), opLoop, 1, opBr, 0, opEnd, opUnreachable)}}},
		"recursion":               {funcs: []function{{code: cat(get(0), call, 0)}}},
		"filling memory":          {memory: memory, funcs: []function{{code: cat(opLoop, typeVoid, constI32(0), constI32(1), constI32(65536), opPrefixMisc, 11, 0, opBr, 0, opEnd, opUnreachable)}}},
		"a branch over the price": {funcs: []function{{code: cat(opLoop, typeVoid, opBlock, typeVoid, opBlock, typeVoid, get(0), opBrIf, 0, opBr, 1, opEnd, opEnd, opBr, 0, opEnd, opUnreachable)}}},
	} {
		t.Run(name, func(t *testing.T) {
			e.t = t
			const tank = 100_000
			got, burned := e.start(rewrite(t, a.bytes())).call("f", tank, 0)
			if got != "wasm error: unreachable" || burned <= tank || burned > tank+40_000 {
				t.Errorf("got %s after %d", got, burned)
			}
		})
	}
}

// TestWhatIsLongIsPaidBeforeItStarts: a length that the tank cannot pay for
// leaves memory as it was.
func TestWhatIsLongIsPaidBeforeItStarts(t *testing.T) {
	a := assembly{memory: []byte{1, 1, 2}, funcs: []function{{code: cat(
		constI32(0), constI32(1), get(0), opPrefixMisc, 11, 0, constI32(0), load8, 0, 0)}}}
	i := newEngine(t, wazero.NewRuntimeConfigCompiler()).start(rewrite(t, a.bytes()))
	if got, _ := i.call("f", 1000, 60_000); got != "wasm error: unreachable" {
		t.Errorf("got %s", got)
	}
	if got, burned := i.call("f", 1000, 0); got != "[0]" || burned > 50 {
		t.Errorf("memory is %s, burned %d", got, burned)
	}
}

// TestNothingRunsUnpaid runs random programs that count their own steps: what a
// run burned covers every step it took, and not absurdly more.
func TestNothingRunsUnpaid(t *testing.T) {
	e := newEngine(t, wazero.NewRuntimeConfigCompiler())
	rounds := 400
	if testing.Short() {
		rounds = 50
	}
	for seed := range uint64(rounds) {
		g := &generator{Rand: rand.New(rand.NewPCG(seed, 1))}
		g.budget = 40 + g.IntN(200)
		g.block(0)
		a := assembly{globals: [][]byte{cat(i64, 1, opI64Const, 0, opEnd), cat(i32, 1, constI32(0), opEnd)},
			exports: [][]byte{append(appendName(nil, "steps"), 3, 0)},
			funcs:   []function{{locals: []byte{1, 1, i32}, code: append(g.code, cat(get(0))...)}}}
		plain, metered := e.start(a.bytes()), e.start(rewrite(t, a.bytes()))
		for n := range uint64(4) {
			before := int64(metered.mod.ExportedGlobal("steps").Get())
			want, _ := plain.call("f", 0, n)
			got, burned := metered.call("f", 1<<40, n)
			steps := int64(metered.mod.ExportedGlobal("steps").Get()) - before
			if got != want {
				t.Fatalf("seed %d: f(%d) is %s, was %s", seed, n, got, want)
			}
			if burned < steps*stepCost {
				t.Fatalf("seed %d: f(%d) took %d steps of %d and burned %d\n%x", seed, n, steps, stepCost, burned, g.code)
			}
		}
		plain.mod.Close(context.Background())
		metered.mod.Close(context.Background())
	}
}

// generator makes code without operands between statements. Local 0 is the
// input, local 1 what decisions are made from, global 0 counts steps, global 1
// bounds what goes back.
type generator struct {
	*rand.Rand
	code   []byte
	budget int
	labels []bool // open blocks; true: a loop
}

// stepCost is what a step costs: global.get, const, add, global.set.
const stepCost = 4

func (g *generator) emit(parts ...any) { g.code = append(g.code, cat(parts...)...) }

func (g *generator) step() { g.emit(opGlobalGet, 0, opI64Const, 1, 0x7c, opGlobalSet, 0) }

// decide leaves a number that varies from step to step.
func (g *generator) decide() {
	g.emit(get(1), constI32(1+g.IntN(9)), mul, get(0), add, constI32(g.IntN(5)), add, 0x22, 1, constI32(g.IntN(4)+2), 0x70)
}

func (g *generator) block(depth int) {
	for n := 1 + g.IntN(4); n > 0 && g.budget > 0; n-- {
		g.budget--
		g.step()
		if depth > 9 {
			continue
		}
		switch g.IntN(8) {
		case 0:
			g.nest(depth, opBlock, false)
		case 1:
			g.nest(depth, opLoop, true)
		case 2:
			g.decide()
			g.nest(depth, opIf, false)
		case 3:
			g.decide()
			g.emit(opIf, typeVoid)
			g.labels = append(g.labels, false)
			g.block(depth + 1)
			g.emit(opElse)
			g.block(depth + 1)
			g.emit(opEnd)
			g.labels = g.labels[:len(g.labels)-1]
		case 4, 5:
			g.leave()
		case 6:
			g.table(depth)
		}
	}
	g.step()
}

func (g *generator) nest(depth int, op int, loop bool) {
	g.emit(op, typeVoid)
	g.labels = append(g.labels, loop)
	g.block(depth + 1)
	g.labels = g.labels[:len(g.labels)-1]
	g.emit(opEnd)
}

// leave branches somewhere; back only so often.
func (g *generator) leave() {
	if len(g.labels) == 0 {
		return
	}
	label := g.IntN(len(g.labels))
	if g.labels[len(g.labels)-1-label] {
		g.emit(opGlobalGet, 1, constI32(1), add, 0x24, 1, opGlobalGet, 1, constI32(500), 0x48, opBrIf, label) // i32.lt_s
		return
	}
	if g.IntN(3) == 0 {
		g.emit(opBr, label)
		return
	}
	g.decide()
	g.emit(opBrIf, label)
}

// table opens blocks, chooses one of them, and closes them with code between.
func (g *generator) table(depth int) {
	n := 2 + g.IntN(4)
	for range n {
		g.emit(opBlock, typeVoid)
		g.labels = append(g.labels, false)
	}
	g.decide()
	g.emit(opBrTable, n-1)
	for i := range n {
		g.emit(i)
	}
	for range n {
		g.labels = g.labels[:len(g.labels)-1]
		g.emit(opEnd)
		g.block(depth + 2)
	}
}

// TestASwitchInALoopPaysForWhatItTakes: stock Go makes a loop around a switch of
// most functions; a turn must not pay for the whole of it.
func TestASwitchInALoopPaysForWhatItTakes(t *testing.T) {
	arm := bytes.Repeat(cat(get(0), drop), 300)
	a := assembly{funcs: []function{{locals: []byte{1, 1, i32}, code: cat(
		opLoop, typeVoid, opBlock, typeVoid, opBlock, typeVoid, get(1), opBrTable, 1, 0, 1, opEnd,
		get(0), constI32(1), sub, 0x22, 0, opBrIf, 1, constI32(1), set(1), opBr, 1, opEnd, arm, opEnd, get(0))}}}
	i := newEngine(t, wazero.NewRuntimeConfigCompiler()).start(rewrite(t, a.bytes()))
	_, ten := i.call("f", 1<<40, 10)
	_, twenty := i.call("f", 1<<40, 20)
	if each := (twenty - ten) / 10; each > 20 {
		t.Errorf("a turn burns %d", each)
	}
}

func TestStockGo(t *testing.T) {
	if raceDetector {
		t.Skip("there is but one goroutine")
	}
	guest := buildGuest(t)
	e := newEngine(t, wazero.NewRuntimeConfigCompiler())
	metered := rewrite(t, guest)
	t.Logf("%d bytes became %d", len(guest), len(metered))
	a, b, plain := e.start(metered), e.start(metered), e.start(guest)
	for _, call := range []struct {
		name string
		n    uint64
	}{{"hash", 10}, {"text", 20}, {"hash", 1000}, {"text", 1}} {
		want, _ := plain.call(call.name, 0, call.n)
		got, burned := a.call(call.name, 1<<40, call.n)
		if got != want {
			t.Errorf("%s(%d) is %s, was %s", call.name, call.n, got, want)
		}
		if _, twice := b.call(call.name, 1<<40, call.n); twice != burned {
			t.Errorf("%s(%d) burned %d, then %d", call.name, call.n, burned, twice)
		}
		t.Logf("%s(%d) burns %d", call.name, call.n, burned)
	}
	if got, _ := a.call("forever", 1_000_000); got != "wasm error: unreachable" {
		t.Errorf("forever ended with %s", got)
	}
}

func buildGuest(t testing.TB) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "guest.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, "./testdata/guest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build guest: %v\n%s", err, out)
	}
	module, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return module
}

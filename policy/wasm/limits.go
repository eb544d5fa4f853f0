package wasm

import "time"

// What a guest may make the host keep or do, beside memory and fuel.
const (
	// maxExchangeBytes is what one filter may put into its exchange: fields,
	// properties, an answer.
	maxExchangeBytes = 4 << 20
	// maxBodyBytes is what a guest may make of one chunk.
	maxBodyBytes = 4 << 20
	// maxFields is how many fields a head may grow to.
	maxFields = 1024
	// maxEdits is how many edits a VM keeps, and maxEditBytes how large they are.
	maxEdits     = 255
	maxEditBytes = 256 << 10
	// maxObjects is how many things a policy, and a VM, may have made of text, how long
	// their texts are together (maxObjectBytes) and one of them (maxObjectText).
	maxObjects     = 256
	maxObjectBytes = 2 << 20
	maxObjectText  = 512 << 10
	// maxPattern is how long a regular expression is, and a template; maxInstructions
	// bounds what repetitions make of it.
	maxPattern      = 2 << 10
	maxInstructions = 5_000
	// maxText is what an expression may search, maxReplaced what may come of it.
	maxText     = 256 << 10
	maxReplaced = 1 << 20
	// maxPaths is how many JSON paths, or edits, one handle names.
	maxPaths = 64
	// maxMatches is how many matches of an expression are replaced.
	maxMatches = 512
	// maxSchema is how long the schema of a configuration is.
	maxSchema = 64 << 10
	// maxName is how long the names of keys and algorithms are.
	maxName = 1 << 10
	// maxDetails is how long an answer's details are.
	maxDetails = 128
	// maxQueues is how many queues a tenant has, and maxQueueName how long their
	// names are.
	maxQueues    = 256
	maxQueueName = 256
	// queueItem is what a piece in a queue is counted for beside its bytes.
	queueItem = 64
	// maxCallTime is the longest that a call may take, which is also what it gets
	// whose caller says nothing, and maxPause how long an exchange is paused that has
	// no deadline of its own.
	maxCallTime = 5 * time.Minute
	maxPause    = time.Minute
	// maxLogBytes is where a line of the log is cut.
	maxLogBytes = 4 << 10
	// maxShared is how many entries a tenant's shared data has.
	maxShared    = 1 << 16
	maxSharedKey = 1 << 10
	// maxMetrics is how many metrics a policy defines, maxMetricName how long
	// their names are, with all labels, and maxMetricLabels how many of these there
	// are. maxTenantSeries is how many series come of all of a tenant's metrics: each
	// time series of a proxy costs whoever collects them.
	maxMetrics      = 1000
	maxMetricName   = 512
	maxMetricLabels = 8
	maxTenantSeries = 10_000
	// maxRandom is how many random bytes one call gives.
	maxRandom = 64 << 10
	// minTick is the shortest period of ticks, in milliseconds.
	minTick = 10
	// keptScratch is how much memory for results a VM keeps from call to call.
	keptScratch = 256 << 10
)

// What host functions draw from the tank: a call costs the host about as much as
// this many instructions cost the guest, and so does every bytesPerFuel bytes.
const (
	fuelPerCall    = 200
	fuelPerEdit    = 50 // a change of an edit
	fuelPerLog     = 2_000
	fuelPerRequest = 10_000 // a call to a service
	fuelPerByte4   = 1      // for each 4 bytes
	// A nanosecond of the host's is about ten instructions of the guest's. The weights
	// of what the host computes are measured: see BenchmarkWeights.
	fuelPerNanosecond  = 10
	fuelPerDigest      = 2_000 // and for each byte
	fuelPerDigestByte  = 10
	fuelPerObject      = 20_000 // what is made of a text, and for each byte of it
	fuelPerObjectByte  = 500
	fuelPerVerified    = 4_000 // to look whether it was checked before
	fuelPerOpen        = 50_000
	fuelPerOpenByte    = 200
	fuelPerBcrypt      = 800_000 // for each of its 2^cost rounds
	fuelPerSearch      = 3_000   // of a text by an expression
	fuelPerTextByte    = 200     // and for each byte of it
	fuelPerInstruction = 40      // and for each byte and instruction
	fuelPerJSONByte    = 100     // of a document, each time it is gone through
	// mostOwed is how much of it host functions may use before it is drawn.
	mostOwed = 1_000
	// maxFuel keeps sums of fuel within 64 bits.
	maxFuel = 1 << 50
	// startFactor: what starts a VM (its runtime's initialisation, the parsing of
	// its configuration) gets this many tanks.
	startFactor = 20
)

// SPDX-License-Identifier: Apache-2.0

package tpmcmd

import (
	"encoding/binary"
	"math"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// message is a TPM command or response with the given code.
func message(code uint32) []byte {
	b := []byte{0x80, 0x01, 0, 0, 0, headerSize, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(b[6:], code)
	return b
}

// byClass is Part 2, 6.5.2, once more: by the names that go-tpm gives the codes,
// and by number where go-tpm is older than the code.
var byClass = map[Class][]tpm2.TPMCC{
	ClassRandom: {tpm2.TPMCCGetRandom, tpm2.TPMCCStirRandom},
	ClassPCR: {tpm2.TPMCCPCRAllocate, tpm2.TPMCCPCREvent, tpm2.TPMCCPCRExtend, tpm2.TPMCCPCRRead, tpm2.TPMCCPCRReset,
		tpm2.TPMCCPCRSetAuthPolicy, tpm2.TPMCCPCRSetAuthValue, tpm2.TPMCCEventSequenceComplete},
	ClassNV: {tpm2.TPMCCNVUndefineSpaceSpecial, tpm2.TPMCCNVUndefineSpace, tpm2.TPMCCNVDefineSpace, tpm2.TPMCCNVGlobalWriteLock,
		tpm2.TPMCCNVIncrement, tpm2.TPMCCNVSetBits, tpm2.TPMCCNVExtend, tpm2.TPMCCNVWrite, tpm2.TPMCCNVWriteLock,
		tpm2.TPMCCNVChangeAuth, tpm2.TPMCCNVRead, tpm2.TPMCCNVReadLock, tpm2.TPMCCNVReadPublic, 0x19d, 0x19e},
	ClassSign: {tpm2.TPMCCSign, tpm2.TPMCCQuote, tpm2.TPMCCCertify, tpm2.TPMCCCertifyCreation, tpm2.TPMCCCertifyX509,
		tpm2.TPMCCNVCertify, tpm2.TPMCCGetTime, tpm2.TPMCCGetCommandAuditDigest, tpm2.TPMCCGetSessionAuditDigest},
	ClassKey: {tpm2.TPMCCCreate, tpm2.TPMCCCreatePrimary, tpm2.TPMCCCreateLoaded, tpm2.TPMCCLoad, tpm2.TPMCCLoadExternal,
		tpm2.TPMCCImport, tpm2.TPMCCDuplicate, tpm2.TPMCCRewrap, tpm2.TPMCCEvictControl, tpm2.TPMCCContextSave,
		tpm2.TPMCCContextLoad, tpm2.TPMCCReadPublic, tpm2.TPMCCObjectChangeAuth, tpm2.TPMCCUnseal},
	ClassSession: {tpm2.TPMCCStartAuthSession, tpm2.TPMCCFlushContext, tpm2.TPMCCPolicyNV, tpm2.TPMCCPolicySecret,
		tpm2.TPMCCPolicySigned, tpm2.TPMCCPolicyAuthorize, tpm2.TPMCCPolicyAuthValue, tpm2.TPMCCPolicyCommandCode,
		tpm2.TPMCCPolicyCounterTimer, tpm2.TPMCCPolicyCpHash, tpm2.TPMCCPolicyLocality, tpm2.TPMCCPolicyNameHash,
		tpm2.TPMCCPolicyOR, tpm2.TPMCCPolicyTicket, tpm2.TPMCCPolicyPCR, tpm2.TPMCCPolicyRestart,
		tpm2.TPMCCPolicyPhysicalPresence, tpm2.TPMCCPolicyDuplicationSelect, tpm2.TPMCCPolicyGetDigest,
		tpm2.TPMCCPolicyPassword, tpm2.TPMCCPolicyNvWritten, tpm2.TPMCCPolicyTemplate, tpm2.TPMCCPolicyAuthorizeNV,
		tpm2.TPMCCPolicyACSendSelect, 0x19b, 0x19c},
	ClassCrypto: {tpm2.TPMCCRSAEncrypt, tpm2.TPMCCRSADecrypt, tpm2.TPMCCECDHKeyGen, tpm2.TPMCCECDHZGen, tpm2.TPMCCZGen2Phase,
		tpm2.TPMCCECEphemeral, tpm2.TPMCCECCParameters, tpm2.TPMCCCommit, tpm2.TPMCCEncryptDecrypt,
		tpm2.TPMCCEncryptDecrypt2, tpm2.TPMCCHash, tpm2.TPMCCMAC, tpm2.TPMCCMACStart, tpm2.TPMCCHashSequenceStart,
		tpm2.TPMCCSequenceUpdate, tpm2.TPMCCSequenceComplete, tpm2.TPMCCVerifySignature, tpm2.TPMCCMakeCredential,
		tpm2.TPMCCActivateCredential, 0x199, 0x19a},
	ClassManage: {tpm2.TPMCCStartup, tpm2.TPMCCShutdown, tpm2.TPMCCSelfTest, tpm2.TPMCCIncrementalSelfTest,
		tpm2.TPMCCGetTestResult, tpm2.TPMCCGetCapability, tpm2.TPMCCTestParms, tpm2.TPMCCReadClock, tpm2.TPMCCClockSet,
		tpm2.TPMCCClockRateAdjust, tpm2.TPMCCHierarchyControl, tpm2.TPMCCHierarchyChanegAuth, tpm2.TPMCCSetPrimaryPolicy,
		tpm2.TPMCCChangeEPS, tpm2.TPMCCChangePPS, tpm2.TPMCCClear, tpm2.TPMCCClearControl, tpm2.TPMCCPPCommands,
		tpm2.TPMCCDictionaryAttackLockReset, tpm2.TPMCCDictionaryAttackParameters, tpm2.TPMCCSetAlgorithmSet,
		tpm2.TPMCCSetCommandCodeAuditStatus, tpm2.TPMCCFieldUpgradeStart, tpm2.TPMCCFieldUpgradeData,
		tpm2.TPMCCFirmwareRead, tpm2.TPMCCACTSetTimeout, 0x19f},
}

func TestClassOfEveryCode(t *testing.T) {
	want := map[uint32]Class{}
	for class, codes := range byClass {
		for _, cc := range codes {
			if _, twice := want[uint32(cc)]; twice {
				t.Fatalf("code %#x is in the table twice", uint32(cc))
			}
			want[uint32(cc)] = class
		}
	}
	for cc := range uint32(0x400) {
		if got := ClassOf(message(cc)); got != want[cc] {
			t.Errorf("ClassOf(code %#x) = %v, want %v", cc, got, want[cc])
		}
	}
}

func TestClassOfWhatIsNoCommand(t *testing.T) {
	for _, cc := range []uint32{0, 1, 0x11e, 0x123, 0x15a, 0x15f, 0x166, 0x175, 0x1ff, 0x2000_0000, 0x2000_017b, math.MaxUint32} {
		if got := ClassOf(message(cc)); got != ClassOther {
			t.Errorf("ClassOf(code %#x) = %v, want other", cc, got)
		}
	}
	random := message(0x17b)
	for n := range random {
		if got := ClassOf(random[:n]); got != ClassOther {
			t.Errorf("ClassOf(%d bytes) = %v, want other", n, got)
		}
	}
}

func TestResultOf(t *testing.T) {
	for rc, want := range map[uint32]Result{
		uint32(tpm2.TPMRCSuccess):      ResultSuccess,
		uint32(tpm2.TPMRCFailure):      ResultFailure,
		uint32(tpm2.TPMRCInitialize):   ResultError,
		uint32(tpm2.TPMRCCommandSize):  ResultError,
		uint32(tpm2.TPMRCAuthMissing):  ResultError,
		uint32(tpm2.TPMRCRetry):        ResultWarning,
		uint32(tpm2.TPMRCLocality):     ResultWarning,
		uint32(tpm2.TPMRCLockout):      ResultWarning,
		uint32(tpm2.TPMRCNVSpace):      ResultError,
		uint32(tpm2.TPMRCObjectMemory): ResultWarning,
		uint32(tpm2.TPMRCHandle):       ResultFormat1,
		0x18b:                          ResultFormat1, // TPM_RC_HANDLE, handle 1
		0x9a2:                          ResultFormat1, // TPM_RC_BAD_AUTH, session 1
		0x1d5:                          ResultFormat1, // TPM_RC_SIZE, parameter 1
		0xfff:                          ResultFormat1,
		0x01e:                          ResultOther, // TPM_RC_BAD_TAG, in the format of TPM 1.2
		0x500:                          ResultOther, // a vendor's
		0x1101:                         ResultOther, // of a layer above the TPM
		math.MaxUint32:                 ResultOther,
	} {
		if got := ResultOf(message(rc)); got != want {
			t.Errorf("ResultOf(%#x) = %v, want %v", rc, got, want)
		}
	}
	if got := ResultOf(message(0)[:headerSize-1]); got != ResultOther {
		t.Errorf("ResultOf(cut response) = %v, want other", got)
	}
}

func TestNamesAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for c := range Class(Classes) {
		seen["class "+c.String()] = true
	}
	for r := range Result(Results) {
		seen["result "+r.String()] = true
	}
	if len(seen) != Classes+Results {
		t.Errorf("%d names for %d classes and %d results", len(seen), Classes, Results)
	}
	if Class(Classes).String() != "other" || Result(Results).String() != "other" {
		t.Error("a value out of range is not called other")
	}
}

func TestBuckets(t *testing.T) {
	for i := range Buckets - 1 {
		b := uint64(Bound(i))
		if Bucket(b) != i || Bucket(b+1) != i+1 {
			t.Errorf("bound %d, %v: bucket %d, and %d one nanosecond later", i, Bound(i), Bucket(b), Bucket(b+1))
		}
	}
	if Bound(0) != 5*time.Microsecond || Bound(Buckets-2) != 5*time.Second {
		t.Errorf("bounds go from %v to %v", Bound(0), Bound(Buckets-2))
	}
	for _, i := range []int{-1, Buckets - 1, Buckets, math.MaxInt} {
		if Bound(i) != math.MaxInt64 {
			t.Errorf("Bound(%d) = %v", i, Bound(i))
		}
	}
	if Bucket(0) != 0 || Bucket(math.MaxUint64) != Buckets-1 {
		t.Errorf("buckets of the extremes are %d and %d", Bucket(0), Bucket(math.MaxUint64))
	}
}

func TestNothingAllocates(t *testing.T) {
	msg := message(0x17b)
	if n := testing.AllocsPerRun(100, func() {
		_ = ClassOf(msg)
		_ = ResultOf(msg)
		_ = Bucket(12345)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(message(0x17b))
	f.Add(message(0x101)[:7])
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c := ClassOf(b); c >= Classes {
			t.Errorf("class %d", c)
		}
		if r := ResultOf(b); r >= Results {
			t.Errorf("result %d", r)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package tpmcmd

// firstCode is the lowest TPM_CC there is.
const firstCode = 0x11f

// classes gives the class of each TPM_CC from firstCode on (Part 2, 6.5.2 as of
// version 1.84). Codes that were never given out are ClassOther.
var classes = [...]Class{
	0x11f - firstCode: ClassNV,      // NV_UndefineSpaceSpecial
	0x120 - firstCode: ClassKey,     // EvictControl
	0x121 - firstCode: ClassManage,  // HierarchyControl
	0x122 - firstCode: ClassNV,      // NV_UndefineSpace
	0x124 - firstCode: ClassManage,  // ChangeEPS
	0x125 - firstCode: ClassManage,  // ChangePPS
	0x126 - firstCode: ClassManage,  // Clear
	0x127 - firstCode: ClassManage,  // ClearControl
	0x128 - firstCode: ClassManage,  // ClockSet
	0x129 - firstCode: ClassManage,  // HierarchyChangeAuth
	0x12a - firstCode: ClassNV,      // NV_DefineSpace
	0x12b - firstCode: ClassPCR,     // PCR_Allocate
	0x12c - firstCode: ClassPCR,     // PCR_SetAuthPolicy
	0x12d - firstCode: ClassManage,  // PP_Commands
	0x12e - firstCode: ClassManage,  // SetPrimaryPolicy
	0x12f - firstCode: ClassManage,  // FieldUpgradeStart
	0x130 - firstCode: ClassManage,  // ClockRateAdjust
	0x131 - firstCode: ClassKey,     // CreatePrimary
	0x132 - firstCode: ClassNV,      // NV_GlobalWriteLock
	0x133 - firstCode: ClassSign,    // GetCommandAuditDigest
	0x134 - firstCode: ClassNV,      // NV_Increment
	0x135 - firstCode: ClassNV,      // NV_SetBits
	0x136 - firstCode: ClassNV,      // NV_Extend
	0x137 - firstCode: ClassNV,      // NV_Write
	0x138 - firstCode: ClassNV,      // NV_WriteLock
	0x139 - firstCode: ClassManage,  // DictionaryAttackLockReset
	0x13a - firstCode: ClassManage,  // DictionaryAttackParameters
	0x13b - firstCode: ClassNV,      // NV_ChangeAuth
	0x13c - firstCode: ClassPCR,     // PCR_Event
	0x13d - firstCode: ClassPCR,     // PCR_Reset
	0x13e - firstCode: ClassCrypto,  // SequenceComplete
	0x13f - firstCode: ClassManage,  // SetAlgorithmSet
	0x140 - firstCode: ClassManage,  // SetCommandCodeAuditStatus
	0x141 - firstCode: ClassManage,  // FieldUpgradeData
	0x142 - firstCode: ClassManage,  // IncrementalSelfTest
	0x143 - firstCode: ClassManage,  // SelfTest
	0x144 - firstCode: ClassManage,  // Startup
	0x145 - firstCode: ClassManage,  // Shutdown
	0x146 - firstCode: ClassRandom,  // StirRandom
	0x147 - firstCode: ClassCrypto,  // ActivateCredential
	0x148 - firstCode: ClassSign,    // Certify
	0x149 - firstCode: ClassSession, // PolicyNV
	0x14a - firstCode: ClassSign,    // CertifyCreation
	0x14b - firstCode: ClassKey,     // Duplicate
	0x14c - firstCode: ClassSign,    // GetTime
	0x14d - firstCode: ClassSign,    // GetSessionAuditDigest
	0x14e - firstCode: ClassNV,      // NV_Read
	0x14f - firstCode: ClassNV,      // NV_ReadLock
	0x150 - firstCode: ClassKey,     // ObjectChangeAuth
	0x151 - firstCode: ClassSession, // PolicySecret
	0x152 - firstCode: ClassKey,     // Rewrap
	0x153 - firstCode: ClassKey,     // Create
	0x154 - firstCode: ClassCrypto,  // ECDH_ZGen
	0x155 - firstCode: ClassCrypto,  // HMAC, MAC
	0x156 - firstCode: ClassKey,     // Import
	0x157 - firstCode: ClassKey,     // Load
	0x158 - firstCode: ClassSign,    // Quote
	0x159 - firstCode: ClassCrypto,  // RSA_Decrypt
	0x15b - firstCode: ClassCrypto,  // HMAC_Start, MAC_Start
	0x15c - firstCode: ClassCrypto,  // SequenceUpdate
	0x15d - firstCode: ClassSign,    // Sign
	0x15e - firstCode: ClassKey,     // Unseal
	0x160 - firstCode: ClassSession, // PolicySigned
	0x161 - firstCode: ClassKey,     // ContextLoad
	0x162 - firstCode: ClassKey,     // ContextSave
	0x163 - firstCode: ClassCrypto,  // ECDH_KeyGen
	0x164 - firstCode: ClassCrypto,  // EncryptDecrypt
	0x165 - firstCode: ClassSession, // FlushContext
	0x167 - firstCode: ClassKey,     // LoadExternal
	0x168 - firstCode: ClassCrypto,  // MakeCredential
	0x169 - firstCode: ClassNV,      // NV_ReadPublic
	0x16a - firstCode: ClassSession, // PolicyAuthorize
	0x16b - firstCode: ClassSession, // PolicyAuthValue
	0x16c - firstCode: ClassSession, // PolicyCommandCode
	0x16d - firstCode: ClassSession, // PolicyCounterTimer
	0x16e - firstCode: ClassSession, // PolicyCpHash
	0x16f - firstCode: ClassSession, // PolicyLocality
	0x170 - firstCode: ClassSession, // PolicyNameHash
	0x171 - firstCode: ClassSession, // PolicyOR
	0x172 - firstCode: ClassSession, // PolicyTicket
	0x173 - firstCode: ClassKey,     // ReadPublic
	0x174 - firstCode: ClassCrypto,  // RSA_Encrypt
	0x176 - firstCode: ClassSession, // StartAuthSession
	0x177 - firstCode: ClassCrypto,  // VerifySignature
	0x178 - firstCode: ClassCrypto,  // ECC_Parameters
	0x179 - firstCode: ClassManage,  // FirmwareRead
	0x17a - firstCode: ClassManage,  // GetCapability
	0x17b - firstCode: ClassRandom,  // GetRandom
	0x17c - firstCode: ClassManage,  // GetTestResult
	0x17d - firstCode: ClassCrypto,  // Hash
	0x17e - firstCode: ClassPCR,     // PCR_Read
	0x17f - firstCode: ClassSession, // PolicyPCR
	0x180 - firstCode: ClassSession, // PolicyRestart
	0x181 - firstCode: ClassManage,  // ReadClock
	0x182 - firstCode: ClassPCR,     // PCR_Extend
	0x183 - firstCode: ClassPCR,     // PCR_SetAuthValue
	0x184 - firstCode: ClassSign,    // NV_Certify
	0x185 - firstCode: ClassPCR,     // EventSequenceComplete
	0x186 - firstCode: ClassCrypto,  // HashSequenceStart
	0x187 - firstCode: ClassSession, // PolicyPhysicalPresence
	0x188 - firstCode: ClassSession, // PolicyDuplicationSelect
	0x189 - firstCode: ClassSession, // PolicyGetDigest
	0x18a - firstCode: ClassManage,  // TestParms
	0x18b - firstCode: ClassCrypto,  // Commit
	0x18c - firstCode: ClassSession, // PolicyPassword
	0x18d - firstCode: ClassCrypto,  // ZGen_2Phase
	0x18e - firstCode: ClassCrypto,  // EC_Ephemeral
	0x18f - firstCode: ClassSession, // PolicyNvWritten
	0x190 - firstCode: ClassSession, // PolicyTemplate
	0x191 - firstCode: ClassKey,     // CreateLoaded
	0x192 - firstCode: ClassSession, // PolicyAuthorizeNV
	0x193 - firstCode: ClassCrypto,  // EncryptDecrypt2
	0x196 - firstCode: ClassSession, // Policy_AC_SendSelect
	0x197 - firstCode: ClassSign,    // CertifyX509
	0x198 - firstCode: ClassManage,  // ACT_SetTimeout
	0x199 - firstCode: ClassCrypto,  // ECC_Encrypt
	0x19a - firstCode: ClassCrypto,  // ECC_Decrypt
	0x19b - firstCode: ClassSession, // PolicyCapability
	0x19c - firstCode: ClassSession, // PolicyParameters
	0x19d - firstCode: ClassNV,      // NV_DefineSpace2
	0x19e - firstCode: ClassNV,      // NV_ReadPublic2
	0x19f - firstCode: ClassManage,  // SetCapability
}

import torch,time
from contextlib import nullcontext
from video_gen.model.wan.vae import WanVAE
from video_gen.model.wan.vae_config import WanVAEConfig
print(torch.get_num_threads())
for name,kw in (("Y32",dict(width=32,multipliers=(1,2,2),temporal=(True,True))),("Y16",dict(width=16,multipliers=(1,2,4),temporal=(True,True))),("X32",dict(width=32,multipliers=(1,2,2),temporal=(True,True),patch=2,shortcuts=True,latent_channels=48))):
    vae=WanVAE(WanVAEConfig.preset('tiny-2.1',**dict(dict(latent_mean=None,latent_std=None),**kw)))
    for F,B in ((1,8),(5,8)):
        for bf in (True,False):
            v=torch.randn(B,3,F,32,32)
            def go():
                with torch.autocast('cpu',torch.bfloat16) if bf else nullcontext(): m=vae.decode(vae.encode(v).mean)
                (m-v).square().mean().backward()
            go(); t=time.process_time()
            for _ in range(2): go()
            print(name,F,B,'bf16' if bf else 'fp32','%.3f'%((time.process_time()-t)/2),flush=True)
